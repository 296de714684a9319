"""A user's code folder: packed by content hash into the store, unpacked on nodes."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from starling.infra import layout
from starling.infra.errors import ObjectExists, StarlingError, UsageError
from starling.infra.store.base import Store

IGNORE_FILE = ".starlingignore"
MAX_BYTES = 200 * 2**20
"""Of all files before compression: more than that is data, and data belongs in a dataset."""

_ALWAYS_IGNORED = (".git", "__pycache__", ".venv", "*.pyc")
_UNPACKED_MARK = ".starling-unpacked"


def pack_code(folder: Path, store: Store, leave_out: Sequence[str] = ()) -> str:
    """Put a folder, as it is on disk now, into the store; return the SHA-256 that names it.

    The same content gives the same hash. `.git`, `__pycache__`, `.venv`, `*.pyc` and what the patterns in
    `.starlingignore` match (one a line; matched against names and paths, no `!`) stay out, and so do the folders
    `leave_out` (relative paths).
    Raises UsageError for a folder that cannot be packed.
    """
    if not folder.is_dir():
        raise UsageError(f"code: {folder} is no folder")
    apart = {PurePosixPath(path) for path in leave_out}
    files = [
        path
        for path in _files(folder, _patterns(folder))
        if apart.isdisjoint((PurePosixPath(path.as_posix()), *PurePosixPath(path.as_posix()).parents))
    ]
    _check_size(folder, files)
    with tempfile.TemporaryDirectory(prefix="starling-code-") as aside:
        archive = Path(aside) / "code.tar.gz"
        _write_archive(folder, files, archive)
        data = archive.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    with suppress(ObjectExists):  # named by content: what is there is what we have
        store.create(layout.code(sha256), data)
    return sha256


def unpack_code(store: Store, sha256: str, dest: Path) -> Path:
    """Make `dest` the code folder of this hash and return it; does nothing if it is already.

    Unpacked aside and renamed, so `dest` is whole or not there. Raises ObjectNotFound, ObjectCorrupt.
    """
    mark = dest / _UNPACKED_MARK
    if mark.is_file() and mark.read_text() == sha256:
        return dest
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", dir=dest.parent) as aside:
        archive, unpacked = Path(aside) / "code.tar.gz", Path(aside) / "code"
        store.download(layout.code(sha256), archive, sha256)
        with tarfile.open(archive, "r:gz") as tar:
            _extract(tar, unpacked)
        (unpacked / _UNPACKED_MARK).write_text(sha256)
        if dest.exists():
            os.replace(dest, Path(aside) / "before")
        os.replace(unpacked, dest)
    return dest


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    # Python 3.11 has filters from its fourth patch release on only; this is what pack_code lets in.
    for member in tar:
        target = PurePosixPath(member.name).parent / member.linkname if member.issym() else PurePosixPath(member.name)
        if not (member.isreg() or member.issym()) or _leads_outside(member.name) or _leads_outside(str(target)):
            raise StarlingError(f"the code archive holds {member.name!r}, which is no plain file or link in its folder")
        tar.extract(member, folder)


def _leads_outside(path: str) -> bool:
    return os.path.normpath(path).startswith(("/", ".."))


def _patterns(folder: Path) -> list[str]:
    ignore = folder / IGNORE_FILE
    lines = ignore.read_text().splitlines() if ignore.is_file() else []
    own = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if negated := [pattern for pattern in own if pattern.startswith("!")]:
        raise UsageError(f"{ignore}: {negated[0]}: patterns with '!' are not supported; list what to leave out")
    return [*_ALWAYS_IGNORED, *own]


def _files(folder: Path, patterns: list[str]) -> Iterator[Path]:
    """Files and links below the folder that are not ignored, as sorted relative paths."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        here = Path(root).relative_to(folder)
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not _ignored(here / name, patterns)]
        found += [here / name for name in [*names, *links] if not _ignored(here / name, patterns)]
    yield from sorted(found, key=lambda path: path.as_posix())


def _ignored(path: Path, patterns: list[str]) -> bool:
    for pattern in patterns:
        plain = pattern.rstrip("/")
        if "/" in plain:
            if fnmatch.fnmatchcase(path.as_posix(), plain.lstrip("/")):
                return True
        elif fnmatch.fnmatchcase(path.name, plain):
            return True
    return False


def _check_size(folder: Path, files: list[Path]) -> None:
    sizes = {path: (folder / path).lstat().st_size for path in files}
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise UsageError(
            f"code: {folder} holds {total / 2**20:.0f} MiB, more than {MAX_BYTES // 2**20} MiB (largest: {largest}, "
            f"{sizes[largest] / 2**20:.0f} MiB); list what nodes do not need in {folder / IGNORE_FILE}"
        )


def _write_archive(folder: Path, files: list[Path], archive: Path) -> None:
    """Nothing but names, contents and the executable bit goes in, so that the hash depends on nothing else."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files:
            _add(tar, folder, path)


def _add(tar: tarfile.TarFile, folder: Path, path: Path) -> None:
    source = folder / path
    info = tarfile.TarInfo(path.as_posix())
    if source.is_symlink():
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, _link_target(folder, path), 0o777
        tar.addfile(info)
        return
    if not source.is_file():
        raise UsageError(f"code: {source} is no plain file; list it in {folder / IGNORE_FILE}")
    with source.open("rb") as content:
        stat = os.fstat(content.fileno())
        info.size, info.mode = stat.st_size, 0o755 if stat.st_mode & 0o111 else 0o644
        tar.addfile(info, content)


def _link_target(folder: Path, path: Path) -> str:
    """The link's target relative to the link, if it stays in the folder."""
    link = folder / path
    target = Path(os.path.normpath(link.parent.resolve() / os.readlink(link)))
    if not target.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"code: {link} points outside the folder (to {target}); copy it, or list it in {folder / IGNORE_FILE}"
        )
    return os.path.relpath(target, link.parent.resolve())
