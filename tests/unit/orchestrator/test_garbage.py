"""What is garbage, what is owned, and what nobody can tell."""

from __future__ import annotations

import pytest

from starling.infra.providers.resources import Resource, ResourceKind
from starling.infra.records import Market, NodeIntent, Offer, RunRecord, RunState, Termination, Verdict
from starling.orchestrator.garbage import (
    ENDING_SECONDS,
    FRESH_SECONDS,
    UPLOAD_SECONDS,
    Fate,
    Owner,
    Unreadable,
    judge,
)

NOW = 1_000_000.0
LONG_AGO = NOW - 10 * FRESH_SECONDS
OFFER = Offer(provider="aws", instance_type="g5.xlarge", zone="us-east-1a", market=Market.SPOT, price_per_hour=0.5)
RUN = RunRecord(run="trial", created_at=LONG_AGO)
PER_RUN = [ResourceKind.LAUNCH_TEMPLATE, ResourceKind.FLEET]
ALL = list(ResourceKind)


def resource(kind: ResourceKind = ResourceKind.INSTANCE, *, created_at: float | None = LONG_AGO) -> Resource:
    return Resource(
        kind=kind,
        id="i-1",
        region="us-east-1",
        store="s3://b/store",
        run="trial",
        node="trial.0.0" if kind is ResourceKind.INSTANCE else None,
        created_at=created_at,
    )


def intent(**changes: object) -> NodeIntent:
    plain = NodeIntent(
        node="trial.0.0",
        run="trial",
        incarnation=0,
        slot=0,
        generation=0,
        offer=OFFER,
        wanted_at=LONG_AGO,
        authorised_until=None,
        instance_id="i-1",
    )
    return plain.but(**changes)


def owner(*intents: NodeIntent, run: RunRecord | None = RUN, verdict: Verdict | None = None) -> Owner:
    return Owner(run=run, verdict=verdict, intents={each.node: each for each in intents})


def verdict(at: float, state: RunState = RunState.DONE) -> Verdict:
    return Verdict(state=state, at=at, by="test", reason="")


@pytest.mark.parametrize("kind", ALL)
def test_what_names_no_run_is_unknown(kind: ResourceKind) -> None:
    assert judge(resource(kind), None, NOW).fate is Fate.UNKNOWN


@pytest.mark.parametrize("kind", ALL)
def test_what_has_an_unreadable_store_is_unknown_however_old(kind: ResourceKind) -> None:
    judged = judge(resource(kind, created_at=0.0), Unreadable(why="access denied"), NOW)
    assert judged.fate is Fate.UNKNOWN
    assert "access denied" in judged.why


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not ResourceKind.UPLOAD])
@pytest.mark.parametrize("run", [RUN, None])
def test_what_is_young_is_never_garbage(kind: ResourceKind, run: RunRecord | None) -> None:
    young = resource(kind, created_at=NOW - FRESH_SECONDS + 1)
    ended = owner(intent(), run=run, verdict=verdict(LONG_AGO))
    assert judge(young, ended, NOW).fate is Fate.OWNED


def test_what_has_no_date_is_never_garbage() -> None:
    assert judge(resource(created_at=None), owner(run=None), NOW).fate is Fate.OWNED


@pytest.mark.parametrize("kind", [*PER_RUN, ResourceKind.INSTANCE])
def test_a_live_run_owns_its_things(kind: ResourceKind) -> None:
    assert judge(resource(kind), owner(intent()), NOW).fate is Fate.OWNED


@pytest.mark.parametrize("kind", [*PER_RUN, ResourceKind.INSTANCE, ResourceKind.VOLUME])
def test_without_its_run_everything_is_garbage(kind: ResourceKind) -> None:
    judged = judge(resource(kind), owner(run=None), NOW)
    assert judged.fate is Fate.GARBAGE
    assert "no run trial" in judged.why


@pytest.mark.parametrize("kind", [*PER_RUN, ResourceKind.INSTANCE])
@pytest.mark.parametrize("state", [RunState.DONE, RunState.FAILED, RunState.STOPPED])
def test_an_ended_run_owns_nothing_after_a_while(kind: ResourceKind, state: RunState) -> None:
    over = owner(intent(), verdict=verdict(NOW - ENDING_SECONDS - 1, state))
    just_over = owner(intent(), verdict=verdict(NOW - ENDING_SECONDS + 1, state))
    assert judge(resource(kind), over, NOW).fate is Fate.GARBAGE
    assert state.value in judge(resource(kind), over, NOW).why
    assert judge(resource(kind), just_over, NOW).fate is Fate.OWNED


def test_a_volume_that_no_machine_uses_is_garbage_even_of_a_live_run() -> None:
    assert judge(resource(ResourceKind.VOLUME), owner(intent()), NOW).fate is Fate.GARBAGE


def test_a_machine_nobody_asked_for_is_garbage() -> None:
    judged = judge(resource(), owner(), NOW)
    assert judged.fate is Fate.GARBAGE
    assert "never asked" in judged.why


def test_a_second_machine_of_a_node_is_garbage() -> None:
    assert judge(resource(), owner(intent(instance_id="i-2")), NOW).fate is Fate.GARBAGE


def test_a_machine_that_its_controller_has_not_named_yet_is_owned() -> None:
    assert judge(resource(), owner(intent(instance_id=None)), NOW).fate is Fate.OWNED


@pytest.mark.parametrize(
    "ended",
    [
        lambda at: intent(terminate=Termination(at=at, reason="budget")),
        lambda at: intent(gone_at=at),
        lambda at: intent(authorised_until=at),
        lambda at: intent(incarnation=-1, wanted_at=at),
    ],
)
def test_what_was_to_end_is_garbage_once_it_had_the_time(ended: object) -> None:
    assert callable(ended)
    assert judge(resource(), owner(ended(NOW - ENDING_SECONDS - 1)), NOW).fate is Fate.GARBAGE
    assert judge(resource(), owner(ended(NOW - ENDING_SECONDS + 1)), NOW).fate is Fate.OWNED


def test_an_authorisation_that_still_holds_is_no_reason() -> None:
    assert judge(resource(), owner(intent(authorised_until=NOW + 1)), NOW).fate is Fate.OWNED


def test_an_upload_older_than_a_day_is_garbage_even_of_a_live_run() -> None:
    upload = resource(ResourceKind.UPLOAD, created_at=NOW - UPLOAD_SECONDS - 1)
    assert judge(upload, owner(intent()), NOW).fate is Fate.GARBAGE


def test_an_upload_of_a_live_run_is_owned_and_of_an_ended_one_garbage() -> None:
    upload = resource(ResourceKind.UPLOAD)
    assert judge(upload, owner(intent()), NOW).fate is Fate.OWNED
    assert judge(upload, owner(verdict=verdict(LONG_AGO)), NOW).fate is Fate.GARBAGE
    assert judge(upload, owner(run=None), NOW).fate is Fate.GARBAGE


def test_an_upload_that_was_begun_just_now_is_owned() -> None:
    """A resumed run, whose record is about to change, may be the one that began it."""
    upload = resource(ResourceKind.UPLOAD, created_at=NOW - 1)
    assert judge(upload, owner(verdict=verdict(LONG_AGO)), NOW).fate is Fate.OWNED
