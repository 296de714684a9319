"""The built-in task that brings a main network and a lesion detector together."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from starling.infra.errors import UsageError
from starling.trainer.data.camera_artefacts import add_artefacts
from starling.trainer.models.fusion_net import FusionNet
from starling.trainer.models.tile_detector import TileDetector
from starling.trainer.needs import needed
from starling.trainer.options import describe
from starling.trainer.task import Batch
from starling.trainer.tasks.classification import ClassificationTask
from starling.trainer.tasks.grading import GradingTask
from starling.trainer.tasks.lesions import LesionsTask
from starling.trainer.tasks.options import GradingOptions


class FusionOptions(GradingOptions):
    """`task.options` of task fusion."""

    mean: list[float] = Field(default=[0.0])
    std: list[float] = Field(default=[1.0])
    main: str = "main"
    """What `needs` calls the run of the main network."""
    lesions: str = "lesions"
    """... of the lesion detector."""
    artefacts: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the training images that get camera artefacts."""

    @model_validator(mode="after")
    def _own_pixels(self) -> FusionOptions:
        if self.mean != [0.0] or self.std != [1.0]:
            raise ValueError("mean and std have no effect: both networks see images as they were trained to; drop them")
        return self


class FusionNetOptions(BaseModel):
    """`model.options` of the spec, for model fusion-net."""

    model_config = ConfigDict(extra="forbid")

    hidden: PositiveInt = 64
    """Units between the features and the classes."""
    grid: Annotated[int, Field(ge=1, le=32)] = 4
    """The lesion map is summed up in grid x grid fields."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


class FusionTask(GradingTask):
    """Grades images by what two trained networks make of them; only the small network over both learns.

    Images come in the detector's resolution; the main network gets them scaled to its own. The two are rebuilt in every
    round, from the states that the run was pinned to when it began (`needed`); they are no part of this run's
    checkpoints.
    """

    name = "fusion"
    options_type = FusionOptions

    def build_model(self) -> torch.nn.Module:
        """Raises UsageError for runs that are no such networks; see `needed`."""
        chosen = self._model_options()
        main, detector = (needed(self.context, name) for name in (self._options.main, self._options.lesions))
        main_task, detector_task = main.task(), detector.task()
        if not isinstance(main_task, ClassificationTask):
            raise UsageError(f"needs.{main.name}: run {main.run} trains no classifier, but {main.spec['task']['name']}")
        if not isinstance(detector_task, LesionsTask):
            task = detector.spec["task"]["name"]
            raise UsageError(f"needs.{detector.name}: run {detector.run} trains no lesion detector, but {task}")
        for task_of in (main_task, detector_task):
            self._check_channels(task_of)
        detector_net = detector.model(detector_task)
        assert isinstance(detector_net, TileDetector)
        try:
            return FusionNet(
                main.model(main_task),
                main_task.sight,
                detector_net,
                detector_task.sight.unscaled(),
                num_classes=len(self.class_names),
                hidden=chosen.hidden,
                grid=chosen.grid,
                dropout=chosen.dropout,
            )
        except ValueError as error:
            raise UsageError(f"needs.{main.name}: the model of run {main.run}: {error}") from error

    def _logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        images = self._pixels(batch)
        if model.training:
            images = add_artefacts(images, self._options.artefacts)
        logits: torch.Tensor = model(images).float()
        return logits

    def _check_channels(self, task: ClassificationTask) -> None:
        ours, theirs = self.index.image.mode, task.index.image.mode
        if ours != theirs:
            raise UsageError(
                f"data.dataset: the images of {self.index.name} are {ours}, but a needed network learned from {theirs}"
            )

    def _model_options(self) -> Any:
        try:
            return FusionNetOptions.model_validate(self.context.model_options)
        except ValidationError as error:
            raise UsageError(describe(error, "model.options", FusionNetOptions)) from error
