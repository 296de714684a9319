"""The built-in task: sort images of a prepared dataset into its classes."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from starling.infra.errors import UsageError
from starling.trainer.data.augment import Augment
from starling.trainer.data.index import load_index, locate
from starling.trainer.data.read import ShardSamples
from starling.trainer.models.build import build
from starling.trainer.options import describe
from starling.trainer.task import Batch, Samples, Scored, Task, TaskContext

Pixels = Annotated[int, Field(ge=1, le=16384)]


class AugmentOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    shift: int = Field(default=0, ge=0)
    """Pixels, along both axes."""
    flip: bool = False


class ClassificationOptions(BaseModel):
    """`task.options` of the spec."""

    model_config = ConfigDict(extra="forbid")

    image_size: Pixels | tuple[Pixels, Pixels] | None = None
    """Scale images to this: one number, or [height, width]. Needed if they differ in size."""
    augment: AugmentOptions | None = None
    mean: list[float] = [0.5]
    """Of the pixels (black is 0, white 1): one for all channels, or one each. Taken off before the model."""
    std: list[Annotated[float, Field(gt=0)]] = [0.5]

    @model_validator(mode="after")
    def _same_length(self) -> ClassificationOptions:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std must be of one length")
        return self

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class ClassificationTask(Task):
    """Cross-entropy and accuracy of any image classifier. Evaluates on split `val`, or else on `test`."""

    loss_name = "cross_entropy"

    def __init__(self, context: TaskContext) -> None:
        """UsageError if the spec names no model or dataset, an unknown option, or a dataset that is not there."""
        super().__init__(context)
        self._options = _parse(context)
        self._model_name = _required(context.model_name, "model", "small-cnn")
        self._dataset = _required(context.dataset, "data.dataset", "digits")
        self._place = locate(context.store, self._dataset)
        self.index = load_index(context.store, self._dataset)
        if len(self._options.mean) not in (1, self.index.image.channels):
            raise UsageError(
                f"task.options.mean: {len(self._options.mean)} numbers for images of "
                f"{self.index.image.channels} channels; give one, or one for each channel"
            )

    def data_sha256(self) -> str:
        return self.index.content_sha256

    def build_model(self) -> torch.nn.Module:
        return build(
            self._model_name,
            self.context.model_options,
            num_classes=len(self.index.classes),
            in_channels=self.index.image.channels,
        )

    def train_samples(self) -> Samples:
        chosen = self._options.augment
        return self._samples("train", Augment(shift=chosen.shift, flip=chosen.flip) if chosen else None)

    def val_samples(self) -> Samples | None:
        split = next((name for name in ("val", "test") if name in self.index.splits), None)
        return self._samples(split) if split else None

    def score(self, model: torch.nn.Module, batch: Batch) -> Scored:
        logits = model(self._normalised(batch["image"])).float()
        labels = batch["label"]
        return Scored(
            losses=cross_entropy(logits, labels), scores={"accuracy": (logits.argmax(dim=1) == labels).float()}
        )

    def _samples(self, split: str, augment: Augment | None = None) -> ShardSamples:
        return ShardSamples(
            self._place,
            self.index,
            split,
            self.context.cache_dir,
            image_size=self._options.height_and_width,
            augment=augment,
        )

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 -> float, on the images' device: a quarter of the bytes to move, and fast there."""
        mean = torch.tensor(self._options.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self._options.std, device=images.device).view(1, -1, 1, 1)
        return (images.float() / 255 - mean) / std


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[b, classes], [b] -> [b]. Selects by comparing, not by gathering, whose gradient adds atomically on CUDA."""
    chosen = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return -torch.where(chosen, logits.log_softmax(dim=1), 0.0).sum(dim=1)


def _parse(context: TaskContext) -> ClassificationOptions:
    try:
        return ClassificationOptions.model_validate(context.options)
    except ValidationError as error:
        raise UsageError(describe(error, "task.options", ClassificationOptions)) from error


def _required(value: str | None, key: str, example: str) -> str:
    if value is None:
        raise UsageError(f"{key}: task classification needs one, for example {key.split('.')[-1]}: {example}")
    return value
