"""The first of ours that runs on a host: sent as text, run by `python -c`, with nothing there but Python itself.

Its input is one line of JSON (the errand, made in `calls.py`), then perhaps our package's archive, which it unpacks
under the root. The rest is done by modules of that package. Its last line of output is the answer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import sys
import tarfile
import time
from pathlib import Path
from typing import IO, Any

ANSWER = "starling-answer "
"""Begins the line that is the answer; a login shell may print lines of its own before it."""


def main(stream: IO[bytes]) -> None:
    errand = json.loads(stream.readline())
    root = Path(errand["root"]).expanduser().absolute()
    package = root / "packages" / errand["package"]
    archive = stream.read()
    if sys.platform != "linux":
        tell({"unfit": f"nodes need Linux; this is {sys.platform}"})
    elif errand["do"] == "clock":
        tell({"now": time.time()})
    elif archive:
        unpack(archive, package)
        touched(package)
        go_on(root, package, errand)
    elif touched(package):
        go_on(root, package, errand)
    elif home(root).is_dir() or errand["prepare"]:
        tell({"missing": "package"})
    else:
        tell({"empty": True})


def home(root: Path) -> Path:
    """Where this host's nodes are. The root may lie on a file system that several hosts share, as home folders often
    do; packages and environments are shared then, nodes never."""
    return root / "hosts" / socket.gethostname()


def touched(folder: Path) -> bool:
    """Whether it is there; if so, it counts as used now, so that nobody clears it away (`leftovers.py`)."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


def tell(answer: dict[str, Any]) -> None:
    print("\n" + ANSWER + json.dumps(answer), flush=True)


def unpack(archive: bytes, folder: Path) -> None:
    """Unpacked aside and renamed, so `folder` is whole or not there. Somebody else may be quicker."""
    if hashlib.sha256(archive).hexdigest() != folder.name:
        raise SystemExit("the archive was damaged on its way")
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(aside, filter="data")
            else:  # Python 3.11.0 to 3.11.3 has no filters; the hash says that the archive is our own
                tar.extractall(aside)
        if not folder.is_dir():
            aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def go_on(root: Path, package: Path, errand: dict[str, Any]) -> None:
    """Find (or begin to make) the Python that has everything, and have it carry out the errand."""
    sys.path.insert(0, str(package))
    from starling.infra.providers.ssh.on_host import environment

    found = environment.find(root, prepare=errand["prepare"])
    if not isinstance(found, Path):
        tell(found)
        return
    path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.update(PYTHONPATH=path, STARLING_HOME=str(home(root)))
    command = [str(found), "-P", "-m", "starling.infra.providers.ssh.on_host.serve", json.dumps(errand)]
    home(root).mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chdir(root)
    os.execv(found, command)


if __name__ == "__main__":
    main(sys.stdin.buffer)
