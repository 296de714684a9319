"""What nobody on any host that shares this root has used for a while is cleared away: packages, environments, refusals.

Every use touches what it uses. A node may run for longer than that, so each host also writes down what its node uses.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from starling.infra.files import write_json
from starling.infra.providers.ssh.on_host import environment

KEPT_SECONDS = 7 * 86_400.0
"""How long what is left stays, if nobody uses or clears it."""
_USES = "uses.json"


def note_use(home: Path, node: str, package: str) -> None:
    """Before a node starts here: its package, and the environment that runs this. One note is enough, as a host has one
    living node at most."""
    write_json(home / _USES, {"node": node, "package": package, "environment": _own_environment(_root(home))})


def clear(home: Path, then: float) -> None:
    """Remove what was not used since this moment. Others may be at it, too."""
    root = _root(home)
    used = set(_in_use(root))
    for folder in (root / "packages", root / "environments"):
        for path in folder.glob("*"):
            if path not in used and _touched_before(path, then) and environment.begun_at(path) is None:
                _remove(path)
    for refusal in home.glob("refused/*/*"):
        if _touched_before(refusal, then):
            refusal.unlink(missing_ok=True)


def _root(home: Path) -> Path:
    return home.parent.parent


def _own_environment(root: Path) -> str | None:
    """The name of the environment whose Python this is; None if it is the host's own Python."""
    made, python = root / "environments", Path(sys.executable)
    return python.relative_to(made).parts[0] if python.is_relative_to(made) else None


def _in_use(root: Path) -> Iterator[Path]:
    """Packages and environments of nodes that have not ended."""
    for file in root.glob(f"hosts/*/{_USES}"):
        uses = json.loads(file.read_bytes())
        node = file.parent / "nodes" / uses["node"]
        if node.is_dir() and not (node / "ended.json").exists():
            yield root / "packages" / uses["package"]
            if uses["environment"] is not None:
                yield root / "environments" / uses["environment"]


def _touched_before(path: Path, then: float) -> bool:
    try:
        return path.stat().st_mtime < then
    except FileNotFoundError:
        return False  # somebody else was quicker


def _remove(path: Path) -> None:
    """At once for whoever looks for it; what a death in between leaves is cleared away later."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return  # somebody else was quicker
    shutil.rmtree(aside, ignore_errors=True)
