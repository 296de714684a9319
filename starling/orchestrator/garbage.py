"""Whether something that carries our tags is still owned by a run: pure, and in doubt for keeping it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from starling.infra.providers.resources import Resource, ResourceKind
from starling.infra.records import NodeIntent, RunRecord, Verdict

FRESH_SECONDS = 300.0
"""What is younger may still be on its way: a machine boots, a controller writes down what it bought."""
ENDING_SECONDS = 180.0
"""How long a node may take to end once it was told to: it saves, and its controller waits 45 s."""
UPLOAD_SECONDS = 86_400.0
"""How long an upload of a run that still goes on may take."""


class Fate(StrEnum):
    OWNED = "owned"
    GARBAGE = "garbage"
    UNKNOWN = "unknown"
    """Nobody can tell: its store cannot be read, or it does not name one. Never removed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    resource: Resource
    fate: Fate
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """What a store says of a run, read after the resources were listed."""

    run: RunRecord | None
    """None: the store holds no such run."""
    verdict: Verdict | None = None
    """Of the current incarnation."""
    intents: Mapping[str, NodeIntent] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """The run's store did not answer."""

    why: str


def judge(resource: Resource, owner: Owner | Unreadable | None, now: float) -> Judgement:
    """What becomes of one resource. `owner`: None if it names no run or no store."""
    fate, why = _fate(resource, owner, now)
    return Judgement(resource=resource, fate=fate, why=why)


def _fate(resource: Resource, owner: Owner | Unreadable | None, now: float) -> tuple[Fate, str]:
    if owner is None:
        return Fate.UNKNOWN, "its tags do not say which run in which store it belongs to"
    if isinstance(owner, Unreadable):
        return Fate.UNKNOWN, f"its store cannot be read: {owner.why}"
    if resource.kind is ResourceKind.UPLOAD:
        return _of_upload(resource, owner, now)
    age = None if resource.created_at is None else now - resource.created_at
    intent = owner.intents.get(resource.node or "")
    if age is None or age < FRESH_SECONDS:
        # A stray machine without an intent is given the time as well: it costs cents, a wrong end costs work.
        return Fate.OWNED, f"younger than {FRESH_SECONDS / 60:.0f} minutes"
    if owner.run is None:
        return Fate.GARBAGE, f"its store holds no run {resource.run}"
    if resource.kind is ResourceKind.VOLUME:
        return Fate.GARBAGE, "no machine uses it"
    if resource.kind is ResourceKind.INSTANCE:
        return _of_instance(resource, owner, owner.run, intent, now)
    return _of_run(owner, now)


def _of_instance(
    resource: Resource, owner: Owner, run: RunRecord, intent: NodeIntent | None, now: float
) -> tuple[Fate, str]:
    if intent is None:
        return Fate.GARBAGE, f"run {run.run} never asked for {resource.node or 'it'}"
    if intent.instance_id not in (None, resource.id):
        return Fate.GARBAGE, f"node {intent.node} is another machine, {intent.instance_id}"
    for since, why in _reasons_to_end(owner, run, intent, now):
        return _ending(since, why, now)
    return Fate.OWNED, f"run {run.run} goes on"


def _reasons_to_end(owner: Owner, run: RunRecord, intent: NodeIntent, now: float) -> list[tuple[float, str]]:
    """(since when, why), the plainest first."""
    reasons: list[tuple[float, str]] = []
    if intent.terminate is not None:
        reasons.append((intent.terminate.at, f"it was told to end ({intent.terminate.reason})"))
    if intent.gone_at is not None:
        reasons.append((intent.gone_at, "it was taken for gone"))
    if owner.verdict is not None:
        reasons.append((owner.verdict.at, f"run {run.run} is {owner.verdict.state.value}"))
    if intent.authorised_until is not None and intent.authorised_until <= now:
        reasons.append((intent.authorised_until, "the time it was authorised for is over"))
    if intent.incarnation != run.incarnation:
        reasons.append((intent.wanted_at, f"it belongs to an earlier start of run {run.run}"))
    return reasons


def _of_run(owner: Owner, now: float) -> tuple[Fate, str]:
    assert owner.run is not None
    if owner.verdict is None:
        return Fate.OWNED, f"run {owner.run.run} goes on"
    return _ending(owner.verdict.at, f"run {owner.run.run} is {owner.verdict.state.value}", now)


def _ending(since: float, why: str, now: float) -> tuple[Fate, str]:
    if now - since < ENDING_SECONDS:
        return Fate.OWNED, f"{why} only just now: it is given {ENDING_SECONDS / 60:.0f} minutes"
    return Fate.GARBAGE, why


def _of_upload(resource: Resource, owner: Owner, now: float) -> tuple[Fate, str]:
    if resource.created_at is None or now - resource.created_at < FRESH_SECONDS:
        return Fate.OWNED, f"younger than {FRESH_SECONDS / 60:.0f} minutes"
    if now - resource.created_at > UPLOAD_SECONDS:
        return Fate.GARBAGE, "unfinished for more than a day"
    if resource.run is None:
        return Fate.OWNED, "younger than a day"
    if owner.run is None:
        return Fate.GARBAGE, f"there is no run {resource.run} any more"
    return _of_run(owner, now)
