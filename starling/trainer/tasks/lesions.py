"""The built-in task that learns to see lesions: is there one in this tile?"""

from __future__ import annotations

from functools import cached_property

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from starling.infra.errors import UsageError
from starling.trainer.models.tile_detector import NONE, TileDetector
from starling.trainer.options import describe
from starling.trainer.tasks.classification import ClassificationTask


class TileDetectorOptions(BaseModel):
    """`model.options` of the spec, for model tile-detector."""

    model_config = ConfigDict(extra="forbid")

    channels: list[PositiveInt] = Field(default=[16, 32, 64], min_length=1)
    """Of each block; every one but the first halves the picture."""
    sharpness: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    """How much a tile's most suspicious places count."""


class LesionsTask(ClassificationTask):
    """Classification of tiles (`starling data tiles` cuts them) into `none` and one or more kinds of lesions.

    Its model has no fixed size of input: `TileDetector.probability_map` runs it over whole images.
    """

    name = "lesions"

    @property
    def class_names(self) -> list[str]:
        """`none` is the first, so that lesions are what counts as positive."""
        return [NONE, *(name for name in self.index.classes if name != NONE)]

    def build_model(self) -> torch.nn.Module:
        try:
            chosen = TileDetectorOptions.model_validate(self.context.model_options)
        except ValidationError as error:
            raise UsageError(describe(error, "model.options", TileDetectorOptions)) from error
        return TileDetector(
            num_classes=len(self.class_names),
            in_channels=self.index.image.channels,
            none=self.class_names.index(NONE),
            channels=chosen.channels,
            sharpness=chosen.sharpness,
        )

    def _class_of(self) -> dict[int, int]:
        return self._positions

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {label: self.class_names.index(name) for label, name in enumerate(self.index.classes)}

    def _check(self) -> None:
        super()._check()
        if NONE not in self.index.classes:
            raise UsageError(
                f"data.dataset: task lesions needs a class {NONE!r} of tiles without any; dataset {self.index.name} "
                f"has {', '.join(self.index.classes)} (`starling data tiles` makes such a dataset's images)"
            )
