"""The Python environment of a node: one that the image brought along, or a new one with pinned versions.

`python3 -m starling.infra.bootstrap.environment`, in the unpacked package, makes it and nothing else: that is how an
image is prepared. Runs on Python 3.8, with nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from starling.infra.bootstrap.pythons import Python, choose_python
from starling.infra.bootstrap.stage0 import ROOT, BootError, BootLog

INSTALL_SECONDS = 1500.0
"""More than the slowest disk and index ever needed."""
LAST_LINES = 15

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
ARCHIVE = Path(__file__).parents[3]
"""Where the package's archive was unpacked. Beside the package lies what `package.py` adds: requirements, and pip."""
REQUIREMENTS = ARCHIVE / "requirements.txt"


def environment_python(root: Path, log: BootLog, seconds: float = INSTALL_SECONDS) -> Path:
    """The interpreter of an environment with exactly our pinned versions; makes it if need be, in so many seconds.

    Raises BootError.
    """
    sha256 = constraints_sha256()
    if (python := _brought_along(root, sha256, log)) is not None:
        return python
    base = choose_python()
    kept = f", keeping its torch {base.packages['torch']}" if base.has_torch else ""
    log.say(f"installing on {base.path} (Python {base.version[0]}.{base.version[1]}){kept}")
    python = _install(root, base, time.monotonic() + seconds)
    _image_file(root).write_text(json.dumps({"python": str(python), "constraints_sha256": sha256}))
    log.say(f"installed {python}")
    return python


def constraints_sha256() -> str:
    """What an image must name in its image.json to be up to date."""
    return hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()


def pins(constraints: str, base: Python) -> str:
    """Constraints for an environment on this base: where its torch is kept, its versions of torch and torchvision hold
    rather than ours (without a torchvision, pip finds the one that fits)."""
    if not base.has_torch:
        return constraints
    ours = re.sub(r"(?m)^(torch|torchvision)==.*\n", "", constraints)
    return ours + "".join(f"{name}=={version}\n" for name, version in base.packages.items() if version)


def _image_file(root: Path) -> Path:
    return root / "image.json"


def _brought_along(root: Path, sha256: str, log: BootLog) -> Path | None:
    try:
        image = json.loads(_image_file(root).read_text())
    except FileNotFoundError:
        return None
    if image.get("constraints_sha256") != sha256:
        log.say("the image was made with other versions than this Starling wants: installing anew")
        return None
    if shutil.which(image["python"]) is None:
        raise BootError(f"{_image_file(root)} names {image['python']}, which cannot be run")
    log.say(f"the image brings {image['python']}: nothing to install")
    return Path(image["python"])


def _install(root: Path, base: Python, until: float) -> Path:
    """pip comes with the archive: Debian's and Ubuntu's Pythons have no ensurepip until `python3-venv` is installed."""
    venv = root / "venv"
    _run(root, [base.path, "-m", "venv", "--clear", "--without-pip", str(venv)], "could not make an environment", until)
    python = venv / "bin" / "python"
    wheel = _pip_wheel()
    # A wheel of pip is a pip that can be run; this is how ensurepip installs one, too.
    pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    itself = ["env", f"PYTHONPATH={wheel}", *pip, "--no-index", "--no-deps", str(wheel)]
    _run(root, itself, "pip could not install itself", until)
    if base.has_torch:
        _show_packages(python, base)
    wanted = root / "constraints.txt"
    wanted.write_text(pins(CONSTRAINTS.read_text(), base))
    _run(root, [*pip, "-r", str(REQUIREMENTS), "-c", str(wanted)], "pip could not install what a node needs", until)
    return python


def _pip_wheel() -> Path:
    found = sorted(ARCHIVE.glob("pip-*.whl"))
    if not found:
        raise BootError(f"there is no wheel of pip in {ARCHIVE}: this is no archive that Starling has packed")
    return found[-1]


def _show_packages(python: Path, base: Python) -> None:
    """Make the base's packages visible behind the environment's own.

    Not by --system-site-packages: where the base is an environment itself, as on the Deep Learning AMI, that would show
    what lies below it instead.
    """
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    own = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    (Path(own) / "starling-base.pth").write_text("".join(f"{folder}\n" for folder in base.site))


def _run(root: Path, command: list[str], failure: str, until: float) -> None:
    """Raises BootError, with the command's last words, if it fails or runs at this monotonic time."""
    limit = max(until - time.monotonic(), 0.0)
    output = root / "install.log"
    with output.open("ab") as file:
        # A session of its own, so that what it started, such as a build, can be ended with it.
        process = subprocess.Popen(
            command, cwd=str(root), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            how = f"exit code {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            how = f"it did not end within the {limit:.0f} s left for it"
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0:
        last = output.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        raise BootError("\n".join([f"{failure} ({how}):", *last]))


def main() -> int:
    """Prepare an image."""
    log = BootLog(ROOT)
    ROOT.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PIP_CACHE_DIR", str(ROOT / "cache" / "pip"))
    try:
        environment_python(ROOT, log)
    except BootError as error:
        log.say(str(error), "ERROR")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
