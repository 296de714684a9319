"""SFTP of paramiko's server side over the real file system, relative to the host's home."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import paramiko
from paramiko import SFTPAttributes, SFTPHandle, SFTPServer


class RealFiles(paramiko.SFTPServerInterface):
    def __init__(self, server: paramiko.ServerInterface, home: Path, *_: Any) -> None:
        super().__init__(server)
        self._home = home

    def canonicalize(self, path: str) -> str:
        return os.path.normpath(self._home / path)

    def list_folder(self, path: str) -> list[SFTPAttributes] | int:
        try:
            found = []
            for entry in os.scandir(self._home / path):
                attributes = SFTPAttributes.from_stat(entry.stat(follow_symlinks=False))
                attributes.filename = entry.name
                found.append(attributes)
            return found
        except OSError as error:
            return _code(error)

    def stat(self, path: str) -> SFTPAttributes | int:
        try:
            return SFTPAttributes.from_stat(os.stat(self._home / path))
        except OSError as error:
            return _code(error)

    def lstat(self, path: str) -> SFTPAttributes | int:
        try:
            return SFTPAttributes.from_stat(os.lstat(self._home / path))
        except OSError as error:
            return _code(error)

    def open(self, path: str, flags: int, attr: SFTPAttributes) -> SFTPHandle | int:
        try:
            file = os.fdopen(os.open(self._home / path, flags, 0o600), "rb" if flags & 3 == os.O_RDONLY else "r+b")
        except OSError as error:
            return _code(error)
        handle = SFTPHandle(flags)
        handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
        return handle

    def remove(self, path: str) -> int:
        return self._try(os.remove, self._home / path)

    def rename(self, oldpath: str, newpath: str) -> int:
        if (self._home / newpath).exists():
            return int(paramiko.SFTP_FAILURE)  # as the protocol says of the plain rename
        return self._try(os.rename, self._home / oldpath, self._home / newpath)

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        return self._try(os.replace, self._home / oldpath, self._home / newpath)

    def mkdir(self, path: str, attr: SFTPAttributes) -> int:
        return self._try(os.mkdir, self._home / path)

    def chattr(self, path: str, attr: SFTPAttributes) -> int:
        return self._try(SFTPServer.set_file_attr, str(self._home / path), attr)

    @staticmethod
    def _try(action: Any, *arguments: Any) -> int:
        try:
            action(*arguments)
        except OSError as error:
            return _code(error)
        return int(paramiko.SFTP_OK)


def _code(error: OSError) -> int:
    return int(SFTPServer.convert_errno(error.errno))
