"""The second source of notices: EC2's events, which the set-up's rules put into a queue.

All runs of a set-up share the queue, and its rules cannot tell our instances from others of the account. So nobody
takes a message out: everybody looks, keeps what concerns its own machines, and leaves the message for the others. To
look is to hide it for a moment; then it is there again. A message that is too old is of no use to anybody, and whoever
finds it deletes it. The nodes' own metadata is the first source; should a busy account bury a notice here, it is the
one that tells.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starling.infra.clock import Clock
from starling.infra.errors import ProviderError
from starling.infra.imds.times import from_timestamp
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.records import Notice, NoticeKind, more_urgent

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

KEPT = 600.0
"""Seconds; a spot instance is gone two minutes after its notice."""
ENDS_KEPT = 90.0
"""Ends of instances are many in a busy account, and are listed anyway: here they tell only the time."""
WARNING = 120.0
"""Seconds from the warning to the interruption: the event does not tell the time."""
HIDDEN = 3
"""Seconds for which a message that one controller has looked at is hidden from the others."""
FULL = 10
"""Messages that one call gives or deletes at most. It often gives fewer, whatever else is there."""
MOST_LOOKS = 20
"""Calls at a time."""

WAIT = 1
"""Seconds to wait for a message; without waiting, SQS asks only some of its servers."""

_INTERRUPTION = "EC2 Spot Instance Interruption Warning"
_REBALANCE = "EC2 Instance Rebalance Recommendation"
_STATE = "EC2 Instance State-change Notification"
_ENDED = frozenset({"shutting-down", "terminated"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Happening:
    """What one event says about an instance."""

    instance_id: str
    at: float
    notice: Notice | None = None
    """None: it ended."""


class NoticeQueue:
    """Remembers what it has read, so that a notice stays known while its message is hidden or gone."""

    def __init__(self, clients: AwsClients, url: str, *, clock: Clock, hidden: int = HIDDEN) -> None:
        self._clients = clients
        self._url = url
        self._clock = clock
        self._hidden = hidden
        self._complaint: str | None = None
        self.notices: dict[str, Notice] = {}
        """The most urgent notice of each of our instances."""
        self.ended: dict[str, float] = {}
        """When they ended."""

    def look(self, mine: Collection[str]) -> None:
        """Read what concerns these instances: one call if nothing is there. A queue that cannot be read is reported,
        once, and no error: the nodes hear of interruptions themselves."""
        try:
            messages = self._read()
            for message in messages.values():
                self._take_in(message.get("Body", ""), mine)
            self._delete([message for message in messages.values() if self._is_old(message)])
        except ProviderError as error:
            if str(error) != self._complaint:
                _log.warning("interruption notices are not read from the queue: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = None

    def _read(self) -> dict[str, MessageTypeDef]:
        """Messages by id, until a call finds nothing new; some come twice."""
        seen: dict[str, MessageTypeDef] = {}
        for _ in range(MOST_LOOKS):
            with self._clients.named("read interruption notices"):
                answer = self._clients.sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=FULL,
                    VisibilityTimeout=self._hidden,
                    WaitTimeSeconds=WAIT,
                )
            found = {message["MessageId"]: message for message in answer.get("Messages", [])}
            news = found.keys() - seen.keys()
            seen |= found
            if not news:
                break
        return seen

    def _take_in(self, body: str, mine: Collection[str]) -> None:
        event = happening(body, self._clock.now())
        if event is None or event.instance_id not in mine:
            return
        if event.notice is None:
            self.ended.setdefault(event.instance_id, event.at)
        else:
            self.notices[event.instance_id] = more_urgent(self.notices.get(event.instance_id), event.notice)

    def _is_old(self, message: MessageTypeDef) -> bool:
        event = happening(message.get("Body", ""), 0.0)
        return event is None or self._clock.now() - event.at > (KEPT if event.notice else ENDS_KEPT)

    def _delete(self, messages: list[MessageTypeDef]) -> None:
        old = [message["ReceiptHandle"] for message in messages]
        for start in range(0, len(old), FULL):
            entries = [
                {"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(old[start : start + FULL])
            ]
            with self._clients.named("delete old interruption notices"):
                self._clients.sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)  # type: ignore[arg-type]


def happening(body: str, now: float) -> Happening | None:
    """What an EventBridge event says; None for one that is none of these.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html"""
    try:
        event: dict[str, Any] = json.loads(body)
        kind, detail, at = event["detail-type"], event["detail"], from_timestamp(event["time"])
        instance_id = str(detail["instance-id"])
    except (ValueError, TypeError, KeyError):
        return None
    if kind == _INTERRUPTION:
        return Happening(instance_id=instance_id, at=at, notice=_notice(NoticeKind.INTERRUPTION, instance_id, at, now))
    if kind == _REBALANCE:
        return Happening(instance_id=instance_id, at=at, notice=_notice(NoticeKind.REBALANCE, instance_id, at, now))
    if kind == _STATE and detail.get("state") in _ENDED:
        return Happening(instance_id=instance_id, at=at)
    return None


def _notice(kind: NoticeKind, instance_id: str, at: float, now: float) -> Notice:
    return Notice(
        id=hashlib.sha256(f"{kind.value} {instance_id} {at:.0f}".encode()).hexdigest()[:16],
        kind=kind,
        seen_at=now,
        takes_effect_at=at + WARNING if kind is NoticeKind.INTERRUPTION else None,
    )
