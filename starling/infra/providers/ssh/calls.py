"""Errands to one host: what is asked of the code that runs there, and how its answer comes back.

Nothing of ours has to be on a host beforehand. Every errand takes a small script along (`on_host/arrival.py`); if that
one finds our package missing, the errand is sent again with the package's archive.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starling.infra import layout
from starling.infra.bootstrap.package import pack_package
from starling.infra.clock import Clock
from starling.infra.errors import Misconfigured, ProviderError, ProviderUnavailable
from starling.infra.providers.ssh.connection import Connection, Ran
from starling.infra.providers.ssh.on_host import arrival
from starling.infra.store.folder import FolderStore

LOOK_SECONDS = 20.0
WORK_SECONDS = 90.0
"""For an errand that starts or ends nodes."""
OLDEST_PYTHON = (3, 11)
MOST_SKEW_SECONDS = 10.0
"""Heartbeats and limits are told in a host's time, and read in others'."""

_OLD = "starling-old-python"
_NOT_FOUND = (126, 127)


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """Starling as it is here, to run there."""

    sha256: str
    archive: bytes


def package() -> Package:
    """Packed anew each time, so that hosts run what is installed here now."""
    with tempfile.TemporaryDirectory(prefix="starling-package-") as aside:
        store = FolderStore(Path(aside))
        sha256 = pack_package(store)
        return Package(sha256=sha256, archive=store.get(layout.code(sha256)).data)


def ask(connection: Connection, root: str, ours: Package, errand: dict[str, Any]) -> dict[str, Any]:
    """Have the host carry out an errand; {"empty": True} if no node can ever have run there.

    Raises Misconfigured if the host cannot serve as it is, ProviderUnavailable if it does not answer or is being made
    ready, ProviderError for anything else that went wrong there.
    """
    prepare = errand["do"] == "launch"
    line = json.dumps({**errand, "root": root, "package": ours.sha256, "prepare": prepare}).encode() + b"\n"
    timeout = LOOK_SECONDS if errand["do"] == "list" else WORK_SECONDS
    answer = _send(connection, line, timeout)
    if answer.get("missing") == "package":
        answer = _send(connection, line + ours.archive, WORK_SECONDS)
    name = connection.host.name
    if "unfit" in answer:
        raise Misconfigured(f"host {name}: {answer['unfit']}")
    if "unready" in answer:
        raise Misconfigured(
            f"host {name} could not be made ready. Put right what is wrong, or install Starling there yourself and name"
            f" that Python in provider.hosts. It said: {answer['unready']}"
        )
    if "preparing" in answer:
        raise ProviderUnavailable(
            f"host {name} is being made ready: its packages are installed, since {answer['preparing']:.0f} s"
        )
    if "failed" in answer:
        raise ProviderError(f"host {name}: {answer['failed']}")
    return answer


def check_clock(connection: Connection, root: str, ours: Package, clock: Clock) -> None:
    """Raises Misconfigured if the host's clock is too far off ours; otherwise like `ask`."""
    sent = clock.now()
    told = ask(connection, root, ours, {"do": "clock"})["now"]
    if (off := seconds_off(told, sent, clock.now())) > MOST_SKEW_SECONDS:
        raise Misconfigured(
            f"host {connection.host.name}: its clock is {off:.0f} s off; let it follow a time server"
            " (`timedatectl set-ntp true` there)"
        )


def seconds_off(told: float, sent: float, received: float) -> float:
    """How wrong a clock is at least that showed `told` at some moment between these two: a slow way there and back
    hides an error, and never looks like one."""
    return max(sent - told, told - received, 0.0)


def _send(connection: Connection, data: bytes, timeout: float) -> dict[str, Any]:
    script = Path(arrival.__file__).read_bytes()
    ran = connection.run(_command(connection.host.python), b"%d\n%b%b" % (len(script), script, data), timeout=timeout)
    for line in reversed(ran.out.decode(errors="replace").splitlines()):
        if line.startswith(arrival.ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(arrival.ANSWER))
            return answer
    raise _no_answer(connection, ran)


def _command(python: str) -> str:
    """One line without newlines, so that any shell takes it: read so many bytes of Python, and run them."""
    old = f"'{_OLD} '+sys.version.split()[0]"
    loader = (
        f"import sys;sys.version_info<{OLDEST_PYTHON} and sys.exit({old});"
        "sys.path=[p for p in sys.path if p];"  # not the folder we start in: it is the user's
        "i=sys.stdin.buffer;exec(i.read(int(i.readline())))"
    )
    return f"{_at_home(python)} -c {shlex.quote(loader)}"


def _at_home(path: str) -> str:
    """Quoted for the shell, but for a `~/` at its beginning."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def _no_answer(connection: Connection, ran: Ran) -> ProviderError:
    host, said = connection.host, ran.err.decode(errors="replace").strip()
    wanted = ".".join(map(str, OLDEST_PYTHON))
    if _OLD in said:
        version = said.partition(_OLD)[2].split()[0]
        found = f"{host.python} there is Python {version}"
        return Misconfigured(f"host {host.name}: {found}; name one of {wanted} or later as its python")
    if ran.status in _NOT_FOUND:
        return Misconfigured(f"host {host.name} has no {host.python}; name a Python of {wanted} or later as its python")
    last = "\n".join(said.splitlines()[-5:]) or ran.out.decode(errors="replace").strip()[-300:] or "nothing"
    return ProviderError(f"host {host.name} did not do what it was asked for (exit code {ran.status}); it said: {last}")
