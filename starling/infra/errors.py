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
│       └── StoreCredentialsExpired  log in again; nothing is lost meanwhile
├── ProviderError               a machine could not be bought, listed or released
│   ├── NoCapacity              this offer cannot be had now: take another offer or wait
│   │   ├── QuotaReached        the account's limit: take an offer that counts against another one, or have it raised
│   │   └── PriceTooLow         the highest price we may pay is below the market's: wait, or raise it
│   ├── Throttled               too many calls: the same call again, later
│   ├── ProviderUnavailable     the provider fails, and may have done what was asked or not: ask the same again
│   ├── CredentialsExpired      log in again; nodes go on meanwhile
│   ├── NotAuthorised           a permission is missing: stop and name it
│   ├── Misconfigured           a setting is wrong: stop and name it
│   └── NotThere                it does not exist (any more): fine for who wanted it gone
├── NoRoom                      this machine's own disk is full: another machine may have room
└── ImdsUnavailable             the node's metadata service gave no sensible answer: ask again, report if it lasts
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why one offer could not be had."""

    instance_type: str
    zone: str
    market: str
    kind: type[NoCapacity]
    """NoCapacity, QuotaReached or PriceTooLow."""
    message: str


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


class StoreCredentialsExpired(StoreUnavailable):
    """The credentials for the store have run out; once they are renewed everything goes on."""


class ProviderError(StarlingError):
    """A provider could not launch, list or terminate a machine."""


class NoCapacity(ProviderError):
    """None of the offers can be had at present; nothing was launched."""

    def __init__(self, message: str, refusals: tuple[Refusal, ...] = ()) -> None:
        super().__init__(message)
        self.refusals = refusals
        """What each offer was refused for, where the provider said so."""


class QuotaReached(NoCapacity):
    """The account may not have more machines of this kind."""


class PriceTooLow(NoCapacity):
    """The market asks more than we may pay."""


class Throttled(ProviderError):
    """Too many calls in too short a time; nothing was done."""


class ProviderUnavailable(ProviderError):
    """The provider failed or did not answer; whether it did what was asked is unknown."""


class CredentialsExpired(ProviderError):
    """The credentials have run out."""


class NotAuthorised(ProviderError):
    """The credentials do not permit the call; the message names the missing action."""


class Misconfigured(ProviderError):
    """The provider cannot accept what we ask for; the message names the setting."""


class NotThere(ProviderError):
    """What was asked for does not exist, or not any more."""


class NoRoom(StarlingError):
    """This machine's own disk has not got the room that is needed."""


class ImdsUnavailable(StarlingError):
    """The node's instance metadata service did not answer, or not sensibly."""
