"""`ssh`, `put` and `get`: work in the folders of nodes that run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, say
from starling.cli.places import Place, places
from starling.infra.errors import UsageError

T = TypeVar("T")


def ssh_verb(run: str, node: str | None, store_uri: str | None) -> NoReturn:
    """Become a shell in the node's folder; of several nodes one must be named."""
    place = _one(run, node, store_uri)
    command = place.shell()
    if shutil.which(command[0]) is None:
        raise UsageError(f"`{command[0]}` is not installed on this computer")
    os.execvp(command[0], command)


def put_verb(run: str, words: list[str], store_uri: str | None, *, as_json: bool) -> None:
    """Copy files to one node, or to all that run."""
    if len(words) < 2:
        raise UsageError("give the files, and where to: starling put RUN FILE... [NODE:]PATH")
    *names, destination = words
    files = [Path(name).expanduser() for name in names]
    for file in files:
        if not file.is_file():
            raise UsageError(f"{file} is {'a folder, not a file' if file.is_dir() else 'not there'}")
    node, path = split_node(run, destination)
    where = {place.node: _tried(place.put, files, path) for place in places(OpenRun(store_for(store_uri), run), node)}
    if as_json:
        emit({"run": run, "put": where})
    else:
        say("\n".join(f"{node}: {place}" for node, put in where.items() for place in put))


def get_verb(run: str, source: str, folder: Path, store_uri: str | None, *, as_json: bool) -> None:
    """Copy a file or a folder of one node here."""
    node, path = split_node(run, source)
    folder = folder.expanduser()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name the folder to copy into")
    place = _one(run, node, store_uri)
    count = _tried(place.get, path, folder)
    if as_json:
        emit({"run": run, "node": place.node, "folder": str(folder), "files": count})
    else:
        say(f"{count} file{'' if count == 1 else 's'} of {place.node} in {folder}")


def split_node(run: str, word: str) -> tuple[str | None, str]:
    """`NODE:PATH` or `PATH`; a node may also be named without its run, as `0.1:PATH`. Raises UsageError."""
    head, colon, path = word.partition(":")
    if not colon:
        node, path = None, word
    elif re.fullmatch(r"\d+\.\d+", head):
        node = f"{run}.{head}"
    elif re.fullmatch(rf"{re.escape(run)}\.\d+\.\d+", head):
        node = head
    else:
        raise UsageError(f"{word}: {head!r} is no node of run {run}; write {run}.0.0:PATH, or ./{word} for a path")
    if not path:
        raise UsageError(f"{word}: name a path; one that does not begin with / is in the node's folder")
    return node, path


def _one(run: str, node: str | None, store_uri: str | None) -> Place:
    found = places(OpenRun(store_for(store_uri), run), f"{run}.{node}" if _short(node) else node)
    if len(found) > 1:
        names = ", ".join(place.node for place in found)
        raise UsageError(f"run {run} has {len(found)} running nodes; name one of {names}")
    return found[0]


def _short(node: str | None) -> bool:
    return node is not None and re.fullmatch(r"\d+\.\d+", node) is not None


def _tried(copy: Callable[..., T], *words: object) -> T:
    """A failure with a file is the user's to mend, so it is told as such."""
    try:
        return copy(*words)
    except OSError as error:
        raise UsageError(f"the copy failed: {error}") from error
