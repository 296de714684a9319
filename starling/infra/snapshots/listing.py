"""What lies in a folder at one moment, without reading any file: enough to tell whether anything has changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes whenever a file does."""

    size: int
    mtime_ns: int
    changed_ns: int
    """ctime: unlike mtime, no program can set it back."""
    inode: int
    mode: int


@dataclass(kw_only=True, slots=True)
class Listing:
    """Paths are relative to the folder, POSIX."""

    files: dict[str, Stamp] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Symbolic links that stay in the folder -> their target, relative to the link."""
    folders: dict[str, Stamp] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """What no snapshot can hold -> why."""

    def newest_change(self, logs: Iterable[str]) -> tuple[float, str] | None:
        """When (epoch seconds) and where something changed last; logs do not count, nor folders that hold one."""
        changes = self.changes(logs)
        newest = max(changes, key=lambda path: changes[path], default=None)
        return (changes[newest], newest) if newest is not None else None

    def changes(self, logs: Iterable[str]) -> dict[str, float]:
        """When (epoch seconds) each path was changed last; without logs, and folders that hold one."""
        patterns = tuple(logs)
        noisy = {str(PurePosixPath(path).parent) for path in self.files if is_log(path, patterns)}
        stamps = {path: stamp for path, stamp in self.files.items() if not is_log(path, patterns)}
        stamps |= {path: stamp for path, stamp in self.folders.items() if path not in noisy}
        return {path: stamp.changed_ns / 1e9 for path, stamp in stamps.items()}

    def difference(self, other: Listing, logs: Iterable[str]) -> str | None:
        """A path that is not the same in both; None if there is none but logs."""
        patterns = tuple(logs)
        for path in sorted({*self.files, *other.files}):
            if not is_log(path, patterns) and self.files.get(path) != other.files.get(path):
                return path
        for path in sorted({*self.links, *other.links}):
            if self.links.get(path) != other.links.get(path):
                return path
        return next(iter(sorted({*self.folders} ^ {*other.folders})), None)


def is_log(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file may be written to at any time: by its name, or its whole path if the pattern has a slash."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)


def look(folder: Path) -> Listing:
    """Everything below a folder; an empty listing if there is no such folder. Raises OSError.

    What vanishes while we look is left out: comparing two listings shows it.
    """
    found = Listing()
    if folder.is_dir():
        _look_below(folder, folder, found)
    return found


def _look_below(root: Path, here: Path, found: Listing) -> None:
    try:
        with os.scandir(here) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in inside:
        path = Path(entry.path).relative_to(root).as_posix()
        if not _is_utf8(path):
            found.left_out[path.encode(errors="backslashreplace").decode()] = "its name is not UTF-8"
            continue
        try:
            _take(root, Path(entry.path), path, entry.stat(follow_symlinks=False), found)
        except FileNotFoundError:
            continue


def _take(root: Path, entry: Path, path: str, status: os.stat_result, found: Listing) -> None:
    stamp = Stamp(
        status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, stat.S_IMODE(status.st_mode) & 0o777
    )
    if stat.S_ISREG(status.st_mode):
        found.files[path] = stamp
    elif stat.S_ISDIR(status.st_mode):
        found.folders[path] = stamp
        _look_below(root, entry, found)
    elif stat.S_ISLNK(status.st_mode):
        target = _target_inside(root, entry)
        if target is None:
            found.left_out[path] = "a link that leads out of the folder"
        elif not _is_utf8(target):
            found.left_out[path] = "what it links to is not UTF-8"
        else:
            found.links[path] = target
    else:
        found.left_out[path] = "neither a file, a folder nor a link"


def _target_inside(root: Path, link: Path) -> str | None:
    """A link's target relative to the link; None if it leads out of the folder. Dangling links are fine."""
    target = Path(os.path.normpath(link.parent / os.readlink(link)))
    if not target.is_relative_to(root):
        return None
    return os.path.relpath(target, link.parent)


def _is_utf8(path: str) -> bool:
    """Whether a record, which is JSON, can hold it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
