"""The pip that travels to nodes: images whose Python has none, and no ensurepip either, are common (Debian, Ubuntu)."""

from __future__ import annotations

import ensurepip
import re
import shutil
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from starling.infra.errors import UsageError

LEAST_PIP = (23, 2)
"""Earlier ones do not run on Python 3.12: https://pip.pypa.io/en/stable/news/"""

_BROUGHT = Path(ensurepip.__file__).parent / "_bundled"
_NOT_A_WHEELS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""What an installation adds to a dist-info folder, or, RECORD, changes."""


def write_pip_wheel(folder: Path, brought: Path = _BROUGHT) -> Path:
    """Write a wheel of the pip that is installed here into the folder, else copy the one that this Python brings.

    The same pip gives the same bytes. Raises UsageError if neither is one that nodes can use.
    """
    try:
        pip = metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        pip = None
    if pip is not None and pip.files and _numbers(pip.version) >= LEAST_PIP:
        return _write(folder, pip)
    wheels = [path for path in brought.glob("pip-*.whl") if _numbers(path.name.split("-")[1]) >= LEAST_PIP]
    if not wheels:
        raise UsageError(
            f"nodes install with the pip of {sys.executable}, and "
            f"{f'{pip.version} is too old' if pip else 'there is none'}: "
            f"`{sys.executable} -m pip install 'pip>={'.'.join(map(str, LEAST_PIP))}'` or your package manager helps"
        )
    return Path(shutil.copy(wheels[0], folder))


def _write(folder: Path, pip: metadata.Distribution) -> Path:
    path = folder / f"pip-{pip.version}-py3-none-any.whl"
    info = f"pip-{pip.version}.dist-info"
    files = {
        file.as_posix(): Path(str(file.locate())).read_bytes()
        for file in pip.files or []
        # Compiled files come anew; programs for Windows are of no use.
        if file.parts[0] in ("pip", info) and file.suffix not in (".pyc", ".exe") and file.name not in _NOT_A_WHEELS
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in sorted([*files, f"{info}/RECORD"])).encode()
    with zipfile.ZipFile(path, "w") as wheel:  # stored as it is: the archive around it is compressed
        for name in sorted(files):
            member = zipfile.ZipInfo(name)  # of 1980, so that the bytes depend on nothing but the content
            member.external_attr = 0o644 << 16
            wheel.writestr(member, files[name])
    return path


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
