"""Files to and from a host by SFTP: each is there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import paramiko

from starling.infra.errors import UsageError


def put_file(sftp: paramiko.SFTPClient, source: Path, target: PurePosixPath) -> None:
    """Copy a file to `target`, replacing what is there; its folder is made. Raises OSError."""
    make_folder(sftp, target.parent)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        sftp.put(str(source), str(aside))  # checks that as many bytes arrived
        sftp.chmod(str(aside), source.stat().st_mode & 0o777)
        sftp.posix_rename(str(aside), str(target))
    except BaseException:
        _remove_quietly(sftp, aside)
        raise


def get_tree(sftp: paramiko.SFTPClient, source: PurePosixPath, folder: Path) -> int:
    """Copy a file, or all plain files of a folder, into `folder`; returns how many. Links are left out.

    Raises OSError, and UsageError if there is nothing of that name.
    """
    if not exists(sftp, source):
        raise UsageError(f"{source} is not there")
    files = list(_files(sftp, source))
    for path in files:
        target = folder / source.name / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            sftp.get(str(path), str(aside))
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    return len(files)


def exists(sftp: paramiko.SFTPClient, path: PurePosixPath) -> bool:
    try:
        sftp.stat(str(path))
    except FileNotFoundError:
        return False
    return True


def is_folder(sftp: paramiko.SFTPClient, path: PurePosixPath) -> bool:
    """False, too, if there is nothing."""
    try:
        return stat.S_ISDIR(sftp.stat(str(path)).st_mode or 0)
    except FileNotFoundError:
        return False


def make_folder(sftp: paramiko.SFTPClient, folder: PurePosixPath) -> None:
    """With all above it. Raises OSError."""
    missing = []
    while not exists(sftp, folder):
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        sftp.mkdir(str(path))


def _files(sftp: paramiko.SFTPClient, path: PurePosixPath) -> Iterator[PurePosixPath]:
    if not is_folder(sftp, path):
        yield path
        return
    for entry in sorted(sftp.listdir_attr(str(path)), key=lambda entry: entry.filename):
        mode = entry.st_mode or 0
        if "/" in entry.filename or entry.filename in (".", ".."):
            raise OSError(f"{path} on the host has an entry called {entry.filename!r}")
        if stat.S_ISDIR(mode):
            yield from _files(sftp, path / entry.filename)
        elif stat.S_ISREG(mode):
            yield path / entry.filename


def _remove_quietly(sftp: paramiko.SFTPClient, path: PurePosixPath) -> None:
    """Of what was half written; if even that fails, the error that brought us here says more."""
    try:
        sftp.remove(str(path))
    except (OSError, EOFError, paramiko.SSHException):
        return
