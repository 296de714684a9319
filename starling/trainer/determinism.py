"""Makes one device compute the same bits every time, and knows when two devices cannot agree."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import torch

from starling.infra.errors import StarlingError

# cuBLAS reads this when CUDA starts, so it must be in the environment before any worker touches the GPU.
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DECIDE_PIXELS = ("pillow", "simplejpeg")
"""Libraries whose versions decide what images decode to."""


class NotDeterministic(StarlingError):
    """The model uses an operation that has no deterministic kernel on this device."""


def set_up_device(choice: str, *, exact: bool, threads: int) -> torch.device:
    """Choose the device of this rank (`auto`, `cpu`, `cuda`) and fix everything that could change its arithmetic."""
    torch.set_num_threads(threads)
    if exact:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise StarlingError("training.device is cuda, but this node has no usable GPU; use auto or cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def named_operations() -> Iterator[None]:
    """Turn torch's refusal of a non-deterministic operation into an error that names it and the ways out.

    Raises:
        NotDeterministic: an operation without a deterministic kernel was called.
    """
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if not found:
            raise
        raise NotDeterministic(
            f"exact training is not possible: {found[1]} has no deterministic kernel on this device; "
            "replace it in the model, or set training.exact: false"
        ) from error


def device_fingerprint(device: torch.device, threads: int) -> dict[str, Any]:
    """What the bits of a result depend on besides code and data: equal fingerprints compute equal bits."""
    python = ".".join(platform.python_version_tuple()[:2])
    fingerprint: dict[str, Any] = {"torch": torch.__version__, "python": python, "threads": threads}
    fingerprint |= {library: version(library) for library in DECIDE_PIXELS}
    if device.type == "cuda":
        return fingerprint | {
            "device": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return fingerprint | {
        "device": f"cpu {_cpu_model()}",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def _cpu_model() -> str:
    # Vendor and model, not only the instruction set: math libraries choose kernels and block sizes by both.
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
