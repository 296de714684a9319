"""Which parts of a model learn when, and how fast: `training.phases` of the spec.

A phase gives every parameter a factor of the learning rate. It follows from the epoch alone, so phases need no state:
a run that resumes in the middle of one is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from starling.infra.errors import UsageError
from starling.trainer.config import Phase

LISTED = 12
"""Names that a message lists."""
NO_FIT = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What a phase does to a model."""

    factors: dict[str, float]
    """Parameter's name -> factor of the learning rate; 0: frozen."""
    still: frozenset[str]
    """Module paths of the BatchNorm layers that keep their statistics."""

    def freeze(self, model: nn.Module) -> None:
        """Let gradients be computed for what learns, and forget those of the rest."""
        for name, parameter in model.named_parameters():
            if name in self.factors:
                parameter.requires_grad_(self.factors[name] > 0)
                parameter.grad = None

    def drop_gradients(self, model: nn.Module) -> None:
        """Of what is frozen: an optimizer leaves alone what has none."""
        for name, parameter in model.named_parameters():
            if self.factors.get(name) == 0:
                parameter.grad = None

    def train(self, model: nn.Module) -> None:
        """Training mode for all but the frozen BatchNorm layers."""
        model.train()
        for path in self.still:
            model.get_submodule(path).eval()


def phase_at(phases: Iterable[Phase], epoch: int) -> int:
    """The number of the phase that an epoch (0-based) is in; the last one lasts until the end."""
    number, end = 0, 0
    for number, phase in enumerate(phases):  # noqa: B007  # the number is the answer
        if phase.epochs is None or epoch < (end := end + phase.epochs):
            break
    return number


def rates_of(phases: Iterable[Phase], model: nn.Module, parts: Mapping[str, list[str]]) -> list[Rates]:
    """What each phase does to this model. `parts`: see `Task.parts`. Raises UsageError: a name that means nothing."""
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [_rates(number, phase.rates, model, trainable, parts) for number, phase in enumerate(phases)]


def grouped(model: nn.Module, rates: list[Rates]) -> list[list[nn.Parameter]]:
    """The parameters that require gradients, in the model's order; those that have equal factors in every phase are in
    one group."""
    groups: dict[tuple[float, ...], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(tuple(each.factors[name] for each in rates), []).append(parameter)
    return list(groups.values())


def set_learning_rate(optimizer: torch.optim.Optimizer, model: nn.Module, rate: float, rates: Rates | None) -> None:
    """Set every group's rate. Without phases there is one group."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()} if rates else {}
    for group in optimizer.param_groups:
        group["lr"] = rate * (rates.factors[name_of[id(group["params"][0])]] if rates else 1.0)


def _rates(
    number: int, given: Mapping[str, float], model: nn.Module, trainable: list[str], parts: Mapping[str, list[str]]
) -> Rates:
    _check_names(number, given, model, parts)
    factors = {name: _factor(name, given, parts) for name in trainable}
    if not any(factors.values()):
        raise UsageError(f"training.phases.{number}.rates: nothing of the model would learn")
    still = [
        path
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and _factor(path, given, parts) == 0
    ]
    return Rates(factors=factors, still=frozenset(still))


def _check_names(number: int, given: Iterable[str], model: nn.Module, parts: Mapping[str, list[str]]) -> None:
    """Raise UsageError for a name that is neither a part nor in the model."""
    own = {path for path, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    for name in given:
        if name in parts or (name and name in own):
            continue
        there = [*parts, *(path for path, _ in model.named_children() if path not in parts)]
        listed = ", ".join(there[:LISTED]) + (", ..." if len(there) > LISTED else "")
        raise UsageError(
            f"training.phases.{number}.rates: the model has no part {name!r}; there are {listed}, and the modules "
            "in them (such as layer4.1)"
        )


def _factor(name: str, given: Mapping[str, float], parts: Mapping[str, list[str]]) -> float:
    """Of the longest prefix that is named and fits; 0 if none does.

    A module's name stands for all that is in it, a part's only for what belongs to no other part more closely. So a
    part that is not named is frozen although another one's shorter prefix covers it: `backbone` has no say in the head.
    """
    closest = max((_fit(prefixes, name) for prefixes in parts.values()), default=NO_FIT)
    longest, factor = 0, 0.0
    for called, its_factor in given.items():
        fit = _fit(parts.get(called, [called]), name)
        if fit >= longest and (called not in parts or fit == closest):
            longest, factor = fit, its_factor
    return factor


def _fit(prefixes: Iterable[str], name: str) -> int:
    """The length of the longest prefix that fits, by whole names between dots, or NO_FIT."""
    fitting = (prefix for prefix in prefixes if not prefix or name == prefix or name.startswith(f"{prefix}."))
    return max(map(len, fitting), default=NO_FIT)
