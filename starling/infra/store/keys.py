"""Which keys and prefixes a store takes: such that every store can hold them and no path leads out of one."""

from __future__ import annotations

import re

from starling.infra.errors import UsageError

LONGEST_KEY = 900
"""Bytes. S3 allows 1,024 with the store's own prefix; the rest is room for that prefix."""
LONGEST_SEGMENT = 255
"""Bytes; what file systems allow for one name."""

_SEGMENT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")
_BEGINNING_OF_SEGMENT = re.compile(r"[A-Za-z0-9._=-]*")
_RULE = "a key is a relative path of [A-Za-z0-9._=-] segments, none of them empty or starting with a dot"


def check_key(key: str) -> str:
    """Return `key` if a store takes it; raises UsageError otherwise."""
    if not key or not all(is_segment(segment) for segment in key.split("/")):
        raise UsageError(f"bad store key {key!r}: {_RULE}, like runs/digits/run.json")
    if len(key) > LONGEST_KEY:
        raise UsageError(f"bad store key {key[:60]!r}...: {len(key)} bytes long, at most {LONGEST_KEY} are allowed")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if keys could start with it (its last segment may be cut short); raises UsageError otherwise."""
    *whole, last = prefix.split("/")
    if not all(is_segment(segment) for segment in whole) or not _BEGINNING_OF_SEGMENT.fullmatch(last):
        raise UsageError(f"bad prefix of store keys {prefix!r}: {_RULE}")
    return prefix


def is_key(name: str) -> bool:
    """False for what lies in a bucket or folder but is not ours to show."""
    return all(is_segment(segment) for segment in name.split("/"))


def is_segment(name: str) -> bool:
    """Whether `name` may stand between two slashes of a key."""
    return len(name) <= LONGEST_SEGMENT and _SEGMENT.fullmatch(name) is not None
