"""What `evaluate` and `predict` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starling.infra.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
_EXTRA = {"torch", "torchvision", "PIL", "safetensors", "sklearn", "simplejpeg", "fsspec", "isal"}


@contextmanager
def training_packages() -> Iterator[None]:
    """Around imports of the trainer: this machine may only start runs, and lack what trains. Raises UsageError."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise UsageError(
            f"this needs the package {package}, which is not installed here: pip install 'starling[train,data]'"
        ) from error


def check_choice(device: str, step: int | None, best: str | None) -> None:
    """Raises UsageError for options that say nothing or contradict each other."""
    if device not in DEVICES:
        raise UsageError(f"--device {device}: there are {', '.join(DEVICES)}")
    if step is not None and best is not None:
        raise UsageError("--step and --best each choose a checkpoint: give one of them")
