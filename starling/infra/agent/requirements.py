"""The requirements.txt of a user's code: what the node lacks is installed, what it has stays as it is."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from starling.infra.errors import StarlingError

REQUIREMENTS = "requirements.txt"
LAST_LINES = 15

_VERSION = r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?"
"""https://packaging.python.org/en/latest/specifications/version-specifiers/, in normal form. Distributions have
packages with other versions, which pip would not take as a constraint."""


def install_requirements(code_dir: Path, site_dir: Path) -> None:
    """Install the code's requirements.txt, if it has one, so that `site_dir` holds what this Python lacks.

    Nothing that this Python has is installed again or in another version: beside the node's own torch and its CUDA
    libraries, that would be gigabytes, and another torch. Done once for each content of that file and each set of
    packages. Raises StarlingError with pip's last lines.
    """
    requirements = code_dir / REQUIREMENTS
    if not requirements.is_file():
        return
    there = installed_versions()
    wanted = hashlib.sha256(requirements.read_bytes() + there.encode()).hexdigest()
    done = site_dir.with_name(f"{site_dir.name}.done")
    if done.is_file() and done.read_text() == wanted:
        return
    overlay = site_dir.with_name(f"{site_dir.name}.env")
    site_dir.unlink(missing_ok=True)
    python = _make_overlay(overlay)
    constraints = overlay / "constraints.txt"
    constraints.write_text(there)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-input", "--disable-pip-version-check"]
    _run([*pip, "-r", REQUIREMENTS, "-c", str(constraints)], code_dir, f"pip could not install {REQUIREMENTS}")
    site_dir.symlink_to(_packages(overlay).relative_to(site_dir.parent.resolve()))
    done.write_text(wanted)


def installed_versions() -> str:
    """This Python's packages as pip's constraints; the first on its path counts, as it does for imports."""
    found: dict[str, str] = {}
    for package in metadata.distributions():
        name, version = package.metadata["Name"], package.version
        if name and version and re.fullmatch(_VERSION, version):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def _make_overlay(folder: Path) -> Path:
    """A virtual environment that sees all packages of this Python, though pip will not touch them; its interpreter.

    Not by --system-site-packages: this Python is mostly an environment itself, and that would show what lies below it.
    """
    _run(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder.resolve())],
        folder.parent,
        "could not make an environment for the code's requirements",
    )
    (_packages(folder) / "starling-node.pth").write_text("".join(f"{path}\n" for path in _package_folders()))
    return folder.resolve() / "bin" / "python"


def _package_folders() -> list[Path]:
    """Where this Python finds packages. Not the standard library: pip builds without what a .pth file has added."""
    library = Path(sysconfig.get_path("stdlib"))
    folders = [Path(path).absolute() for path in sys.path if path and Path(path).is_dir()]
    return [folder for folder in folders if folder not in (library, library / "lib-dynload")]


def _packages(overlay: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return overlay.resolve() / "lib" / version / "site-packages"


def _run(command: list[str], folder: Path, failure: str) -> None:
    ran = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if ran.returncode != 0:
        last = "\n".join(ran.stdout.strip().splitlines()[-LAST_LINES:])
        raise StarlingError(f"{failure} (packages that the node has keep their versions):\n{last}")
