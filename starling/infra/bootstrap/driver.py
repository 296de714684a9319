"""Is the machine's NVIDIA driver new enough for the torch that will use it?

Runs on Python 3.8, with nothing but the standard library.
"""

from __future__ import annotations

import re
import subprocess

from starling.infra.agent.gpus import TIMEOUT_SECONDS, ask

LEAST_DRIVER = {11: (450,), 12: (525,), 13: (580,)}
"""CUDA's major version -> the least Linux driver for all its minor versions ("minor version compatibility"):
https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, read in November 2026."""


def driver_complaint(driver: str, cuda: str) -> str | None:
    """Why a torch built for this CUDA cannot run on this driver; None if it can, or if we do not know that CUDA."""
    least = LEAST_DRIVER.get(int(cuda.split(".")[0]))
    if least is None or _numbers(driver) >= least:
        return None
    return (
        f"the NVIDIA driver is {driver}, but torch is built for CUDA {cuda}, which needs {least[0]} or later: choose "
        "an image with a newer driver, or a prebuilt one with a torch for an older CUDA"
    )


def driver_version() -> str:
    """Of the first GPU: they share one. Call it once nvidia-smi has been found in order."""
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    answer = ask(command)
    answer.check_returncode()
    return answer.stdout.split()[0]


_ASK_CUDA = """
import importlib.util, pathlib, runpy
torch = pathlib.Path(importlib.util.find_spec("torch").origin)
print(runpy.run_path(str(torch.with_name("version.py")))["cuda"] or "")
"""
"""Without importing torch, which takes seconds."""


def cuda_version(python: str) -> str | None:
    """The CUDA that this interpreter's torch is built for; None: none at all."""
    ran = subprocess.run([python, "-c", _ASK_CUDA], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    return ran.stdout.strip() or None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
