"""Names of models -> models."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import nn

from starling.infra.errors import UsageError
from starling.trainer.models.efficientnet_lite import EfficientNetLite0
from starling.trainer.models.head import put_head
from starling.trainer.models.pratt_cnn import PrattCNN
from starling.trainer.models.small_cnn import SmallCNN
from starling.trainer.models.torchvision_shim import import_torchvision
from starling.trainer.options import describe

SMALL_CNN = "small-cnn"
EFFICIENTNET_LITE0 = "efficientnet-lite0"
PRATT_CNN = "pratt-cnn"
TORCHVISION = "torchvision/"

INCEPTIONS = ("googlenet", "inception_v3")
"""Of torchvision's models those whose constructors have defaults of their own."""

Options = TypeVar("Options", bound=BaseModel)


class SmallCNNOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    channels: list[PositiveInt] = Field(default=[32, 64, 64], min_length=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class LiteOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    dropout: float = Field(default=0.2, ge=0, lt=1)


class PrattCNNOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    channels: list[PositiveInt] = Field(default=[32, 64, 128, 256, 512], min_length=1)
    dense: PositiveInt = 1024
    dropout: float = Field(default=0.5, ge=0, lt=1)


def build(name: str, options: dict[str, Any], *, num_classes: int, in_channels: int) -> nn.Module:
    """A freshly initialised image classifier ("small-cnn", "efficientnet-lite0", "pratt-cnn" or "torchvision/<name>")
    with these inputs and outputs.

    `options` go to the model's constructor, `options.head` to `put_head`. UsageError for a name or an option that does
    not exist.
    """
    own = {key: value for key, value in options.items() if key != "head"}
    if name == SMALL_CNN:
        model = _small_cnn(own, num_classes=num_classes, in_channels=in_channels)
    elif name == EFFICIENTNET_LITE0:
        dropout = _parse(LiteOptions, own).dropout
        model = EfficientNetLite0(num_classes=num_classes, in_channels=in_channels, dropout=dropout)
    elif name == PRATT_CNN:
        chosen = _parse(PrattCNNOptions, own)
        model = PrattCNN(num_classes=num_classes, in_channels=in_channels, **chosen.model_dump())
    elif name.startswith(TORCHVISION):
        model = _torchvision(name.removeprefix(TORCHVISION), own, num_classes=num_classes, in_channels=in_channels)
    else:
        known = [SMALL_CNN, EFFICIENTNET_LITE0, PRATT_CNN, *(TORCHVISION + each for each in _torchvision_names())]
        raise UsageError(_unknown(name, known))
    if "head" in options:
        put_head(model, options["head"])
    return model


def _small_cnn(options: dict[str, Any], *, num_classes: int, in_channels: int) -> nn.Module:
    chosen = _parse(SmallCNNOptions, options)
    return SmallCNN(num_classes=num_classes, in_channels=in_channels, channels=chosen.channels, dropout=chosen.dropout)


def _parse(kind: type[Options], options: dict[str, Any]) -> Options:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise UsageError(describe(error, "model.options", kind)) from error


def _torchvision(name: str, options: dict[str, Any], *, num_classes: int, in_channels: int) -> nn.Module:
    names = _torchvision_names()
    if name not in names:
        raise UsageError(_unknown(TORCHVISION + name, [TORCHVISION + each for each in names]))
    if fixed := sorted(options.keys() & {"weights", "num_classes"}):
        raise UsageError(
            f"model.options.{fixed[0]}: cannot be set; the task tells a model's classes, and model.weights what it "
            "starts from"
        )
    models = import_torchvision().models
    settings = _defaults(name, in_channels) | options | {"weights": None, "num_classes": num_classes}
    try:
        model: nn.Module = models.get_model(name, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"model.options: torchvision's {name} refuses {options}: {error}") from error
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


def _defaults(name: str, in_channels: int) -> dict[str, Any]:
    """No second output, and no warning about how weights are initialised. Their ImageNet weights come from TensorFlow,
    which takes pixels from -1 to 1: as torchvision does with weights, they turn pixels that are normalised as for all
    other models into these."""
    if name not in INCEPTIONS:
        return {}
    return {"aux_logits": False, "init_weights": True, "transform_input": in_channels == 3}


def _torchvision_names() -> list[str]:
    models = import_torchvision().models
    names: list[str] = models.list_models(module=models)
    return names


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    """Give a model made for colour images another number of input channels, freshly initialised."""
    path, old = next((path, each) for path, each in model.named_modules() if isinstance(each, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]  # torch declares its own attributes too widely
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    there = f"there are {SMALL_CNN}, {EFFICIENTNET_LITE0}, {PRATT_CNN} and {TORCHVISION}<name>"
    hint = f"did you mean {' or '.join(close)}?" if close else there
    return f"model: there is no model {name!r}; {hint}"
