"""The record of a snapshot, strict about paths: what is read from a store must not lead out of a folder."""

from __future__ import annotations

import posixpath
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from starling.infra.records import Record


def _inside(path: str, *, whole_folder: bool = False) -> str:
    """Refuse a path that leads out of the folder it is meant in."""
    normal = posixpath.normpath(path)
    outside = posixpath.isabs(path) or normal == ".." or normal.startswith("../") or "\0" in path
    if outside or (normal == "." and not whole_folder) or (normal != path and not whole_folder):
        raise ValueError(f"{path!r} is no path inside the folder")
    return path


SafePath = Annotated[str, AfterValidator(_inside)]
"""A path that cannot lead out of the folder it is meant in."""


class SnapshotFile(Record):
    """One file of a snapshot."""

    path: SafePath
    size: int
    """Bytes."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of its content, and its name in the store."""
    mode: int
    """Permission bits."""


class Snapshot(Record):
    """A script's folder as a whole; exists once this record does, which is created after all its files."""

    number: int
    at: float
    why: str
    """interval, join, done, stop, leave, lost, failure: what it was made for."""
    incarnation: int = 0
    """Of the run; with `round` it tells whose snapshot is the later one, whatever their numbers are."""
    round: int
    node: str
    files: tuple[SnapshotFile, ...]
    links: dict[SafePath, str]
    """Symbolic links -> target, relative to the link; none leads out of the folder."""
    folders: dict[SafePath, int]
    """Every folder -> permission bits; empty ones are kept too."""
    left_out: dict[str, str]
    """What could not be held -> why."""
    content: str
    """Hash of all paths and contents but logs: equal if nothing that matters differs."""
    seconds: float
    """How long it took, from the first look at the folder until all files were in the store."""

    @model_validator(mode="after")
    def _links_stay_inside(self) -> Snapshot:
        for link, target in self.links.items():
            _inside(posixpath.normpath(posixpath.join(posixpath.dirname(link), target)), whole_folder=True)
            if posixpath.isabs(target):
                raise ValueError(f"link {link!r} leads to the absolute path {target!r}")
        return self

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.size for file in self.files)
