"""Other Pythons on this computer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def installed(name: str) -> str | None:
    """A Python of this version: on PATH, or one that pyenv keeps."""
    kept = Path("~/.pyenv/versions").expanduser().glob(f"{name.removeprefix('python')}.*/bin/{name}")
    for python in filter(None, [shutil.which(name), *map(str, kept)]):
        if subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0:
            return python
    return None


def without_ensurepip(python: str, folder: Path) -> Path:
    """A copy of this Python that has neither ensurepip nor any package: its standard library is linked to."""
    ask = (
        "import os, sys; print(sys.version_info.minor, os.path.realpath(sys.executable), os.path.dirname(os.__file__))"
    )
    answer = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=True)
    minor, executable, library = answer.stdout.split()
    copy = folder / "bin" / "python3"
    packages = folder / "lib" / f"python3.{minor}" / "site-packages"
    for needed in (copy.parent, packages):
        needed.mkdir(parents=True)
    shutil.copy(executable, copy)
    for entry in Path(library).iterdir():
        if entry.name not in ("ensurepip", "site-packages"):
            (packages.parent / entry.name).symlink_to(entry)
    return copy
