"""Finds a model's blocks: the modules that are run as a whole, one after another (residual blocks, encoder layers).

What is held in parts (`sharding.py`) or computed again (`recompute.py`) is a block at a time. Only the nesting of the
modules decides, so it works for torchvision's models and for your own; no list of names.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Module path -> block, in the model's order; blocks do not overlap. A model may have none.

    A block is a module with children that is neither the model itself nor a stack, nor a part of another block. A
    stack is a container (Sequential, ModuleList, ModuleDict) that holds modules with children, or a module that holds
    a container of at least two blocks of one class.
    """
    return dict(_inside(model, ""))


def _inside(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if not _has_children(child):
            continue
        if _is_stack(child):
            yield from _inside(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _is_stack(module: nn.Module) -> bool:
    if type(module).forward is nn.Module.forward:  # it cannot be run: a ModuleList, a ModuleDict
        return True
    if isinstance(module, _CONTAINERS):
        return any(_has_children(child) for child in module.children())
    return any(_repeats(child) for child in module.children() if isinstance(child, _CONTAINERS))


def _repeats(container: nn.Module) -> bool:
    """Whether two of its children are blocks of one class; a Sequential is a part of a block rather than one."""
    kinds = [type(child) for child in container.children() if _has_children(child)]
    return any(kinds.count(kind) > 1 for kind in kinds if not issubclass(kind, nn.Sequential))


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None
