"""The head of a classifier: its last layer, or what `model.options.head` puts in its place."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import nn

from starling.infra.errors import UsageError
from starling.trainer.options import describe


class HeadOptions(BaseModel):
    """`model.options.head` of the spec."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hidden: PositiveInt | None = None
    """Units of a layer before the last one; None: no such layer."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before each linear layer."""


class Head(nn.Sequential):
    """Dropout, linear, ReLU, dropout, linear; without a hidden layer dropout, linear."""

    def __init__(self, inputs: int, outputs: int, *, hidden: int | None, dropout: float) -> None:
        first = [] if hidden is None else [nn.Dropout(dropout), nn.Linear(inputs, hidden), nn.ReLU()]
        super().__init__(*first, nn.Dropout(dropout), nn.Linear(hidden or inputs, outputs))


def head_path(model: nn.Module) -> str:
    """Where a classifier's head is: the module path of its `Head`, else of its last linear layer, else (SqueezeNet) of
    its last convolution. Raises ValueError if it has none of them."""
    modules = list(model.named_modules())
    for kind in (Head, nn.Linear, nn.Conv2d):
        for path, module in reversed(modules):
            if isinstance(module, kind):
                return str(path)
    raise ValueError(f"{type(model).__name__} has no layer that could be its head")


def put_head(model: nn.Module, options: Any) -> None:
    """Replace the last layer by the head that `model.options.head` describes. Raises UsageError."""
    chosen = parse_head(options)
    path = head_path(model)
    old = model.get_submodule(path)
    if not isinstance(old, nn.Linear):
        raise UsageError(
            f"model.options.head: {type(model).__name__} ends in a {type(old).__name__}, not in a linear layer; drop it"
        )
    parent, _, attribute = path.rpartition(".")
    new = Head(old.in_features, old.out_features, hidden=chosen.hidden, dropout=chosen.dropout)
    setattr(model.get_submodule(parent), attribute, new)


def parse_head(options: Any) -> HeadOptions:
    try:
        return HeadOptions.model_validate(options)
    except ValidationError as error:
        raise UsageError(describe(error, "model.options.head", HeadOptions)) from error
