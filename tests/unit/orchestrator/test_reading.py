"""Reading a run whose records are not all there."""

from __future__ import annotations

import pytest

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt
from starling.infra.journal import Journal
from starling.infra.providers.base import Machine
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


def machine(instance_id: str, launched_at: float, *, alive: bool) -> Machine:
    return Machine(node="mine.0.0", instance_id=instance_id, alive=alive, launched_at=launched_at)


LIVING, NEWER, DEAD, OLDER = (
    machine("i-living", 5.0, alive=True),
    machine("i-newer", 9.0, alive=True),
    machine("i-dead", 7.0, alive=False),
    machine("i-older", 3.0, alive=False),
)


@pytest.mark.parametrize(
    ("recorded", "gone_at", "chosen"),
    [
        ("i-living", None, LIVING),
        ("i-living", 8.0, LIVING),
        ("i-dead", None, DEAD),
        ("i-dead", 8.0, NEWER),
        (None, None, NEWER),
        ("i-unknown", None, NEWER),
    ],
)
def test_of_two_machines_of_one_name_the_recorded_one_counts_until_its_end_is_recorded(
    folder_store: Store, recorded: str | None, gone_at: float | None, chosen: Machine
) -> None:
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
        instance_id=recorded,
        gone_at=gone_at,
    )
    folder_store.create(layout.intent("mine.0.0"), intent.to_bytes())
    for order in ((NEWER, LIVING, DEAD, OLDER), (OLDER, DEAD, LIVING, NEWER)):
        (node,) = RunReader(folder_store, "mine").facts(order).nodes
        assert node.machine == chosen


def test_a_stray_that_runs_is_not_hidden_by_a_dead_one_of_its_name(folder_store: Store) -> None:
    create_run(folder_store, spec(), name="mine")
    for order in ((LIVING, DEAD), (DEAD, LIVING)):
        assert RunReader(folder_store, "mine").facts(order).strays == (LIVING,)


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
