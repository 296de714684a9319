"""`task.options` of the tasks that sort images into classes. docs/tasks.md explains them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from starling.trainer.data.augment import Augment

Pixels = Annotated[int, Field(ge=1, le=16384)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

IMAGENET_PIXELS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""Of the photographs that torchvision's weights were trained on; https://docs.pytorch.org/vision/stable/models.html."""


def _up_to(value: object) -> object:
    """A single number is the upper end."""
    return (0.0, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


UpTo = Annotated[tuple[NotNegative, NotNegative], BeforeValidator(_up_to)]


class AugmentOptions(BaseModel):
    """See `Augment`."""

    model_config = ConfigDict(extra="forbid")

    flip: bool = False
    flip_vertical: bool = False
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: int = Field(default=0, ge=0)
    zoom: tuple[Positive, Positive] = (1.0, 1.0)
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    channel_gain: Share = 0.0
    blur: UpTo = (0.0, 0.0)
    noise: UpTo = (0.0, 0.0)

    @model_validator(mode="after")
    def _ascending(self) -> AugmentOptions:
        for name in ("zoom", "blur", "noise"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} goes from the smaller number to the larger, so [{high}, {low}]")
        return self

    def build(self) -> Augment:
        return Augment(**self.model_dump())


class LossOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["cross_entropy", "weighted", "focal"] = "cross_entropy"
    weights: Literal["balanced"] | list[NotNegative] | None = None
    """For weighted and focal: `balanced`, or one for each class; None: balanced for weighted, none for focal."""
    gamma: NotNegative = 2.0
    """For focal."""

    @model_validator(mode="after")
    def _only_what_counts(self) -> LossOptions:
        if self.name == "cross_entropy" and self.weights is not None:
            raise ValueError("weights have no effect with cross_entropy; use the name weighted")
        if self.name != "focal" and "gamma" in self.model_fields_set:
            raise ValueError(f"gamma has no effect with {self.name}; use the name focal, or drop it")
        return self

    @property
    def class_weights(self) -> Literal["balanced"] | list[float] | None:
        return "balanced" if self.name == "weighted" and self.weights is None else self.weights


class ClassificationOptions(BaseModel):
    """`task.options` of task classification."""

    model_config = ConfigDict(extra="forbid")

    image_size: Pixels | tuple[Pixels, Pixels] | None = None
    """Scale images to this: one number, or [height, width]. Needed if they differ in size."""
    augment: AugmentOptions | None = None
    mean: list[float] = [0.5]
    """Of the pixels (black is 0, white 1): one for all channels, or one each. Taken off before the model."""
    std: list[Positive] = [0.5]
    loss: Annotated[LossOptions, BeforeValidator(_named)] = LossOptions()
    resample: Share = 0.0
    """How far each epoch's classes are balanced by repeating and leaving out samples."""
    metrics: list[str] | None = None
    """Which to report of those there are; None: all."""

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        filled = dict(given)
        if filled.get("mean") == "imagenet":
            filled.setdefault("std", "imagenet")
        for name, pixels in IMAGENET_PIXELS.items():
            if filled.get(name) == "imagenet":
                filled[name] = pixels
        return filled

    @model_validator(mode="after")
    def _same_length(self) -> ClassificationOptions:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std must be of one length")
        return self

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class GradingOptions(ClassificationOptions):
    """`task.options` of task grading."""

    classes: Literal[5, 3, 2] | None = None
    """Of five grades; None: one class for each grade."""
    groups: list[list[int]] | None = None
    """Lists of grades instead of `classes`, in order."""
    positive_from: Annotated[int, Field(ge=1)] | None = None
    """The class from which on an image counts as positive; None: the first whose lowest grade is 2 or more, else 1."""

    @model_validator(mode="after")
    def _one_of_them(self) -> GradingOptions:
        if self.classes is not None and self.groups is not None:
            raise ValueError("classes and groups say the same in two ways; drop one")
        return self
