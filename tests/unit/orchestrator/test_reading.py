"""Reading a run whose records are not all there."""

from __future__ import annotations

import pytest

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt
from starling.infra.journal import Journal
from starling.infra.records import EventKind, Market, NodeIntent, Offer, RunState, Verdict
from starling.infra.snapshots.records import Snapshot
from starling.infra.store import Store
from starling.orchestrator.reading import RunReader
from starling.orchestrator.runs import create_run
from tests.support.specs import spec

OFFER = Offer(provider="local", instance_type="local", zone="local", market=Market.SPOT, price_per_hour=1.0)


@pytest.mark.parametrize("damage", [b"", b"\x80garbage", b"{}"])
def test_what_a_power_cut_left_empty_is_passed_over(folder_store: Store, damage: bytes) -> None:
    create_run(folder_store, spec(), name="mine")
    intent = NodeIntent(
        node="mine.0.0",
        run="mine",
        incarnation=0,
        slot=0,
        generation=0,
        offer=OFFER,
        wanted_at=1.0,
        authorised_until=None,
    )
    folder_store.create(layout.intent("mine.0.0"), intent.to_bytes())
    folder_store.put(layout.status("mine.0.0"), damage)
    folder_store.put(f"{layout.events('mine')}00000000000000001-x.json", damage)
    folder_store.put(f"{layout.failures('mine', 0)}00000000000000001-mine.0.0-0.json", damage)
    reader = RunReader(folder_store, "mine")
    facts = reader.facts()
    assert [(node.node, node.status) for node in facts.nodes] == [("mine.0.0", None)]
    assert facts.failures == ()
    Journal(folder_store, "mine").write(EventKind.DECISION, "mine", "later")
    assert [event.kind for event in reader.events()] == [EventKind.RUN_CREATED, EventKind.DECISION]


def test_a_damaged_intent_is_an_error(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    folder_store.put(layout.intent("mine.0.0"), b"garbage")
    with pytest.raises(ObjectCorrupt, match="NodeIntent"):
        RunReader(folder_store, "mine").facts()


def test_a_run_ended_with_the_snapshot_that_its_verdict_names(folder_store: Store) -> None:
    for number in (1, 2, 3):
        record = Snapshot(
            number=number,
            at=1.0,
            why="interval",
            round=0,
            node="mine.0.0",
            files=(),
            links={},
            folders={},
            left_out={},
            content="",
            seconds=0.1,
        )
        folder_store.create(layout.snapshot("mine", number), record.to_bytes())
    reader = RunReader(folder_store, "mine")
    newest, final = reader.snapshot(None), reader.snapshot(verdict({"snapshot": 2}))
    assert newest is not None
    assert final is not None
    assert (newest.number, final.number) == (3, 2), "the third is by a node that had been cut off"
    assert reader.snapshot(verdict(None)) == newest


def verdict(result: dict[str, int] | None) -> Verdict:
    return Verdict(state=RunState.DONE, at=1.0, by="mine.0.0", reason="r", result=result)
