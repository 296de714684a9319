"""Every error Starling raises on purpose, named for what the caller does next.

StarlingError
├── UsageError                  the user's input is wrong: say what, where, what would be right; exit code 2
├── StoreError                  the store said no
│   ├── ObjectNotFound          there is no such object
│   ├── ObjectExists            create-only put lost: somebody else created it first
│   ├── VersionConflict         conditional replace lost: read again and decide again
│   ├── ObjectCorrupt           the bytes are not the bytes that were written (checksum)
│   ├── StoreAccessDenied       credentials or permissions are wrong: stop and tell the user
│   └── StoreUnavailable        retries are used up: try later
├── ProviderError               a machine could not be bought, listed or released
│   └── NoCapacity              this offer cannot be had now: take another offer or wait
├── NoRoom                      this machine's own disk is full: another machine may have room
└── ImdsUnavailable             the node's metadata service gave no sensible answer: ask again, report if it lasts
"""

from __future__ import annotations


class StarlingError(Exception):
    """Root of all expected errors; its message is written for the user."""

    exit_code = 1


class UsageError(StarlingError):
    """The user's input is wrong. The message names what is wrong, where, and what would be right."""

    exit_code = 2


class StoreError(StarlingError):
    """The store could not do what was asked."""


class ObjectNotFound(StoreError):
    """There is no object under this key."""


class ObjectExists(StoreError):
    """A create-only put found an object already there."""


class VersionConflict(StoreError):
    """A conditional replace found another version than the one that was read."""


class ObjectCorrupt(StoreError):
    """Downloaded bytes do not match their recorded checksum or size."""


class StoreAccessDenied(StoreError):
    """The store refuses these credentials, or this path cannot be written."""


class StoreUnavailable(StoreError):
    """The store did not answer properly within all retries."""


class ProviderError(StarlingError):
    """A provider could not launch, list or terminate a machine."""


class NoCapacity(ProviderError):
    """The offer cannot be had at present."""


class NoRoom(StarlingError):
    """This machine's own disk has not got the room that is needed."""


class ImdsUnavailable(StarlingError):
    """The node's instance metadata service did not answer, or not sensibly."""
