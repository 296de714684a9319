"""`python confined.py FOLDER ... -- COMMAND ...`: runs a command that can write below these folders and nowhere else.

The kernel (Landlock, Linux 6.2 or later, no rights needed) refuses everything else, to all processes that come of it.
"""

from __future__ import annotations

import ctypes
import os
import sys

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH = 1
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
# Writing, removing, making anything, moving between folders, truncating; reading and executing are not handled.
ALL_WRITES = WRITE_FILE | TRUNCATE | sum(1 << bit for bit in range(4, 14))
PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def available() -> bool:
    """Whether this kernel can do it (version 3 of the interface knows of truncation)."""
    return bool(_libc.syscall(CREATE_RULESET, None, 0, 1) >= 3)


def confine(folders: list[str]) -> None:
    """From now on, this process and its children write below these folders only."""
    attributes = _Ruleset(ALL_WRITES)
    rules = _done(_libc.syscall(CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0))
    for path, allowed in [*((folder, ALL_WRITES) for folder in folders), ("/dev/null", WRITE_FILE | TRUNCATE)]:
        beneath = _Beneath(allowed, os.open(path, os.O_PATH))
        _done(_libc.syscall(ADD_RULE, rules, PATH_BENEATH, ctypes.byref(beneath), 0))
    _done(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _done(_libc.syscall(RESTRICT_SELF, rules, 0))


def _done(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    mark = sys.argv.index("--")
    confine(sys.argv[1:mark])
    os.execv(sys.argv[mark + 1], sys.argv[mark + 1 :])
