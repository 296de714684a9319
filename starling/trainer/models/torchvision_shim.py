"""Lets torchvision be imported where its compiled operators cannot load.

PyPI has torchvision in CUDA builds only. Beside a CPU build of torch its C++ library does not load, and its import
then fails over two operators that nobody defined. Declaring them is enough for models and transforms, which use
neither. Where torchvision works, or is not installed, nothing is done.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from starling.infra.errors import UsageError


def import_torchvision() -> ModuleType:
    """torchvision, usable for models and transforms. UsageError if it is not installed."""
    declare_missing_operators()
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise UsageError("torchvision is not installed: pip install 'starling[train]'") from error


@cache  # the library must live as long as its declarations
def declare_missing_operators() -> torch.library.Library | None:
    """Make a later `import torchvision`, by whomever, work in this process. Cheap: does not import it."""
    if torch.version.cuda is not None or not _is_cuda_build():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _is_cuda_build() -> bool:
    """Read off its version file (`__version__ = '0.28.0+cu130'`); the package's metadata does not tell."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return False
    return "+cu" in Path(found.origin).with_name("version.py").read_text()
