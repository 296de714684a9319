"""Offers that were refused rest, longer each time, while others are tried. A memory; losing it is harmless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starling.infra.errors import NoCapacity, QuotaReached, Refusal
from starling.infra.records import Offer

OfferKey = tuple[str, str, str]
"""Instance type, zone, market."""

FIRST_SECONDS = 30.0
LONGEST_SECONDS = 900.0
FIRST_QUOTA_SECONDS = 300.0
"""A limit of the account does not go away like a shortage: something has to end, or be raised, first."""
LONGEST_QUOTA_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """One offer is left alone for a while."""

    refusal: Refusal
    times: int
    """In a row."""
    until: float


class Rests:
    """Which offers rest."""

    def __init__(self) -> None:
        self._rests: dict[OfferKey, Rest] = {}

    def refused(self, candidates: Iterable[Offer], refusals: Iterable[Refusal], asked_at: float, now: float) -> None:
        """An attempt with these candidates failed. Where the provider did not say which it tried, all of them rest.
        The refusal of a request that was made while an offer rested already does not count again."""
        said = {(one.instance_type, one.zone, one.market): one for one in refusals}
        offers = {offer.key for offer in candidates}
        for key in (said.keys() & offers) or offers:
            before = self._rests.get(key)
            if before is None or before.until <= asked_at:
                self._rests[key] = _longer(before, said.get(key) or _unsaid(key), now)

    def bought(self, offer: Offer, now: float) -> None:
        """It can be had again; one that was refused just now, beside this one, goes on resting."""
        rest = self._rests.get(offer.key)
        if rest is not None and rest.until <= now:
            del self._rests[offer.key]

    def at(self, now: float) -> Mapping[OfferKey, Rest]:
        """Those that rest at this moment."""
        return {key: rest for key, rest in self._rests.items() if rest.until > now}


def _longer(before: Rest | None, refusal: Refusal, now: float) -> Rest:
    quota = issubclass(refusal.kind, QuotaReached)
    first, longest = (FIRST_QUOTA_SECONDS, LONGEST_QUOTA_SECONDS) if quota else (FIRST_SECONDS, LONGEST_SECONDS)
    # What was last refused long ago is a new shortage.
    times = before.times + 1 if before is not None and now < before.until + longest else 1
    return Rest(refusal=refusal, times=times, until=now + min(longest, first * 2.0 ** (times - 1)))


def _unsaid(key: OfferKey) -> Refusal:
    instance_type, zone, market = key
    return Refusal(
        instance_type=instance_type, zone=zone, market=market, kind=NoCapacity, message="it cannot be had now"
    )
