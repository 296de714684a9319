"""Interruption sources of a node as one kind of event."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any, Protocol

from starling.infra.errors import ImdsUnavailable
from starling.infra.imds.times import from_timestamp
from starling.infra.records import Notice, NoticeKind

ERRORS_BEFORE_REPORT = 3
"""So many failed polls in a row are no hiccup any more: the node is blind to notices, and says so."""

_log = logging.getLogger(__name__)


class Metadata(Protocol):
    """What a poll needs of an IMDS client."""

    def get(self, path: str) -> str | None: ...


def poll(client: Metadata, now: float) -> Notice | None:
    """The most urgent notice that stands, if any: an interruption before a rebalance recommendation.

    Polling again gives the same id: IMDS has none, so it is a hash of what the notice says.
    Raises ImdsUnavailable, also if an answer makes no sense.
    """
    if (answer := client.get("meta-data/spot/instance-action")) is not None:
        return _notice(NoticeKind.INTERRUPTION, answer, "time", now)
    if (answer := client.get("meta-data/events/recommendations/rebalance")) is not None:
        return _notice(NoticeKind.REBALANCE, answer, "noticeTime", now)
    return None


class NoticeWatch:
    """Polls again and again; keeps the newest notice, and reports a failure that repeats."""

    def __init__(self, client: Metadata) -> None:
        self._client = client
        self._errors = 0
        self.notice: Notice | None = None

    def look(self, now: float) -> Notice | None:
        """Poll once. A notice stays known even if later polls fail; `seen_at` is when it was seen first."""
        try:
            found = poll(self._client, now)
        except ImdsUnavailable as error:
            self._errors += 1
            # At the threshold, then ever more rarely: 3, 6, 12, ... failures in a row.
            if self._errors % ERRORS_BEFORE_REPORT == 0 and (self._errors // ERRORS_BEFORE_REPORT).bit_count() == 1:
                _log.error("cannot see interruption notices (%d polls failed): %s", self._errors, error)
            return self.notice
        if self._errors >= ERRORS_BEFORE_REPORT:
            _log.info("interruption notices can be seen again after %d failed polls", self._errors)
        self._errors = 0
        if found is not None and self._is_news(found):
            self.notice = found
        return self.notice

    def _is_news(self, found: Notice) -> bool:
        known = self.notice
        if known is None:
            return True
        # An announced interruption is never played down to a recommendation, even if it is no longer served.
        return found.id != known.id and not (
            known.kind is NoticeKind.INTERRUPTION and found.kind is NoticeKind.REBALANCE
        )


def _notice(kind: NoticeKind, answer: str, time_key: str, now: float) -> Notice:
    try:
        document: dict[str, Any] = json.loads(answer)
        at = from_timestamp(document[time_key])
    except (ValueError, TypeError, KeyError) as error:
        raise ImdsUnavailable(f"the metadata service's {kind.value} notice cannot be read: {answer!r}") from error
    return Notice(
        id=hashlib.sha256(f"{kind.value} {at:.0f}".encode()).hexdigest()[:16],
        kind=kind,
        seen_at=now,
        # A rebalance recommendation tells when it was made, not when the instance will go.
        takes_effect_at=at if kind is NoticeKind.INTERRUPTION else None,
    )
