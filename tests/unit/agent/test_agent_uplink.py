from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from starling.infra import layout
from starling.infra.agent import uplink as uplinks
from starling.infra.agent.output import LogBuffer
from starling.infra.agent.uplink import Uplink
from starling.infra.clock import FakeClock
from starling.infra.errors import StoreUnavailable
from starling.infra.journal import read_events
from starling.infra.records import (
    EventKind,
    Market,
    NodeIntent,
    NodeState,
    NodeStatus,
    Offer,
    RunRecord,
    RunState,
    StopRequest,
    Verdict,
)
from starling.infra.store import Store, open_store

NODE = "r.0.0"
OFFER = Offer(provider="local", instance_type="local", zone="local", market=Market.SPOT, price_per_hour=1.0)
INTENT = NodeIntent(
    node=NODE, run="r", incarnation=1, slot=0, generation=0, offer=OFFER, wanted_at=0.0, authorised_until=None
)
STATUS = NodeStatus(
    node=NODE, run="r", state=NodeState.TRAINING, at=0.0, booted_at=0.0, address="127.0.0.1", instance_id="i"
)
STOP = StopRequest(at=1.0, reason="enough")


class TroubledStore:
    """A real store; everything asked of it raises `trouble`, if that is set."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trouble: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        if self.trouble is not None:
            raise self.trouble
        return getattr(self._store, name)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TroubledStore:
    monkeypatch.setattr(uplinks, "INTERVAL_SECONDS", 0.01)
    store = TroubledStore(open_store(str(tmp_path / "store")))
    store.create(layout.intent(NODE), INTENT.to_bytes())
    store.create(layout.run_record("r"), RunRecord(run="r", created_at=0.0, incarnation=1).to_bytes())
    return store


@contextmanager
def linked(store: TroubledStore, tmp_path: Path) -> Iterator[tuple[Uplink, LogBuffer]]:
    logs = LogBuffer(tmp_path / "node.log")
    uplink = Uplink(store, "r", NODE, logs, tmp_path / "metrics.jsonl", FakeClock())
    uplink.start()
    try:
        yield uplink, logs
    finally:
        uplink.close()


def soon(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at, "not within a minute"
        time.sleep(0.005)


def test_the_controllers_word_arrives(store: TroubledStore, tmp_path: Path) -> None:
    with linked(store, tmp_path) as (uplink, _):
        soon(lambda: uplink.remote().intent == INTENT)
        assert uplink.remote().stop is None
        assert uplink.remote().verdict is None
        extended = INTENT.but(authorised_until=5.0)
        store.put(layout.intent(NODE), extended.to_bytes())
        soon(lambda: uplink.remote().intent == extended)
        verdict = Verdict(state=RunState.DONE, at=2.0, by="x", reason="done")
        store.create(layout.verdict("r", 1), verdict.to_bytes())
        soon(lambda: uplink.remote().verdict == verdict)


@pytest.mark.parametrize(("incarnation", "concerns"), [(1, True), (2, False)])
def test_a_stop_request_concerns_its_own_incarnation_only(
    store: TroubledStore, tmp_path: Path, incarnation: int, concerns: bool
) -> None:
    record = RunRecord(run="r", created_at=0.0, incarnation=incarnation, stop=STOP)
    store.put(layout.run_record("r"), record.to_bytes())
    with linked(store, tmp_path) as (uplink, _):
        soon(lambda: uplink.remote().intent is not None)
        assert uplink.remote().stop == (STOP if concerns else None)


def test_missing_records_are_noticed_and_their_return_too(store: TroubledStore, tmp_path: Path) -> None:
    with linked(store, tmp_path) as (uplink, _):
        soon(lambda: uplink.remote().intent is not None)
        store.delete(layout.intent(NODE))
        soon(lambda: uplink.remote().missing_since is not None)
        assert uplink.remote().intent == INTENT, "the last word still holds"
        store.create(layout.intent(NODE), INTENT.to_bytes())
        soon(lambda: uplink.remote().missing_since is None)


def test_nothing_is_lost_in_an_outage_and_nobody_waits_for_it(store: TroubledStore, tmp_path: Path) -> None:
    with linked(store, tmp_path) as (uplink, logs):
        soon(lambda: uplink.remote().intent is not None)
        store.trouble = StoreUnavailable("no route")
        uplink.event(EventKind.NODE_NOTICE, "interruption notice", kind="interruption")
        logs.write(b"a line\n")
        uplink.publish(STATUS)
        soon(lambda: uplink._away_since is not None)
        assert uplink.remote().intent == INTENT
        store.trouble = None
        soon(lambda: bool(list(store.list(layout.status(NODE)))))
        assert [event.data for event in read_events(store, "r")] == [{"kind": "interruption"}]
        assert [store.get(info.key).data for info in store.list(layout.logs("r"))] == [b"a line\n"]


def test_an_unreadable_record_is_no_reason_to_stop(store: TroubledStore, tmp_path: Path) -> None:
    with linked(store, tmp_path) as (uplink, _):
        soon(lambda: uplink.remote().intent is not None)
        store.put(layout.run_record("r"), b"{}")
        soon(lambda: uplink._away_since is not None)
        assert uplink.remote().intent == INTENT


def test_a_fault_of_ours_is_raised_in_the_agents_loop(store: TroubledStore, tmp_path: Path) -> None:
    with linked(store, tmp_path) as (uplink, _):
        soon(lambda: uplink.remote().intent is not None)
        store.trouble = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            soon(lambda: uplink.remote() is None)


def test_the_last_words_are_sent_at_close(store: TroubledStore, tmp_path: Path) -> None:
    with linked(store, tmp_path) as (uplink, logs):
        logs.write(b"last line\n")
        uplink.event(EventKind.NODE_ENDED, "done")
        uplink.publish(STATUS.but(state=NodeState.ENDED))
        assert uplink.close()
    assert NodeStatus.from_bytes(store.get(layout.status(NODE)).data).state is NodeState.ENDED
    assert [event.kind for event in read_events(store, "r")] == [EventKind.NODE_ENDED]
    assert [store.get(info.key).data for info in store.list(layout.logs("r"))] == [b"last line\n"]


def test_close_says_if_the_store_did_not_take_them(store: TroubledStore, tmp_path: Path) -> None:
    with linked(store, tmp_path) as (uplink, _):
        store.trouble = StoreUnavailable("no route")
        soon(lambda: uplink._away_since is not None)
        assert not uplink.close()
