"""Chooses the Python that a node's environment is built on.

Runs on Python 3.8, with nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from starling.infra.bootstrap.stage0 import BootError

LEAST_PYTHON = (3, 11)
LEAST_TORCH = (2, 11)
PROBE_SECONDS = 60.0

CANDIDATES = (
    # Deep Learning AMIs ("python_location"): https://docs.aws.amazon.com/dlami/latest/devguide/appendix-ami-release-notes.html
    *("/opt/pytorch/bin/python", "/opt/conda/envs/pytorch/bin/python", "/opt/conda/bin/python"),
    *("python3.13", "python3.12", "python3.11", "python3"),
)
"""Best first; STARLING_PYTHON, a list like PATH, takes their place on images that keep theirs elsewhere."""

_PROBE = """
import importlib.metadata, json, sys, sysconfig
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
paths = sysconfig.get_paths()
print(json.dumps({
    "version": sys.version_info[:2],
    "packages": {name: version(name) for name in ("torch", "torchvision")},
    "site": sorted({paths["purelib"], paths["platlib"]}),
}))
"""


@dataclass(frozen=True)  # kw_only and slots came with Python 3.10
class Python:
    """An interpreter, and what is installed in it."""

    path: str
    version: tuple[int, int]
    packages: dict[str, str | None]
    """Versions of torch and torchvision; None: it has no such package."""
    site: list[str]
    """Folders that its packages lie in."""

    @property
    def has_torch(self) -> bool:
        """Whether its torch is one that we can train with."""
        found = re.match(r"(\d+)\.(\d+)", self.packages.get("torch") or "0.0")
        return found is not None and (int(found[1]), int(found[2])) >= LEAST_TORCH


def choose_python() -> Python:
    """The first that is new enough and has torch, else the first that is new enough. Raises BootError."""
    given = os.environ.get("STARLING_PYTHON")
    candidates = given.split(os.pathsep) if given else list(CANDIDATES)
    found = list(_probed(candidates))
    fit = [python for python in found if python.version >= LEAST_PYTHON]
    if not fit:
        seen = ", ".join(f"{python.path} is {python.version[0]}.{python.version[1]}" for python in found)
        raise BootError(
            f"this image has no Python {LEAST_PYTHON[0]}.{LEAST_PYTHON[1]} or later ({seen or 'none was found'}; "
            f"looked for {', '.join(candidates)}); choose one that has, such as AWS's Deep Learning AMI, or name its "
            "Python in STARLING_PYTHON"
        )
    return next((python for python in fit if python.has_torch), fit[0])


def _probed(candidates: Iterable[str]) -> Iterator[Python]:
    """Those that are there and run, each once."""
    for path in dict.fromkeys(filter(None, map(shutil.which, candidates))):
        try:
            ran = subprocess.run([path, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS)
            answer = json.loads(ran.stdout)
        except (OSError, subprocess.TimeoutExpired, ValueError):
            continue  # no interpreter, or a broken one: as good as not there
        version = (int(answer["version"][0]), int(answer["version"][1]))
        yield Python(path, version, answer["packages"], answer["site"])
