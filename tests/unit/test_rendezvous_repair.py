"""A rendezvous whose one object is lost or damaged: training goes on, and nobody forms a second group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from starling.infra.store import Store
from starling.trainer.rendezvous import Settings, StoreRendezvous
from starling.trainer.rendezvous_state import Group

KEY = "rendezvous/r/group.json"
PAIR = Settings(least=1, most=2, window=60.0, watch=0.05, join_timeout=120.0)
"""Two are all, so they form at once; one alone never does."""
TRIO = replace(PAIR, most=3)

Make = Callable[[str, Settings], StoreRendezvous]


@pytest.fixture
def make(folder_store: Store) -> Iterator[Make]:
    made: list[StoreRendezvous] = []

    def one(label: str, settings: Settings) -> StoreRendezvous:
        made.append(StoreRendezvous(folder_store, "rendezvous/r", "r", "127.0.0.1", settings, label=label))
        return made[-1]

    yield one
    for rendezvous in made:
        rendezvous.leave()


def form(*members: StoreRendezvous) -> None:
    with ThreadPoolExecutor(len(members)) as pool:
        list(pool.map(lambda member: member.next_rendezvous(), members))


def group(store: Store) -> Group:
    return Group.from_bytes(store.get(KEY).data)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("damage", [b"\x80garbage", b"{}", None])
def test_a_lost_group_is_put_back_and_newcomers_find_it(folder_store: Store, make: Make, damage: bytes | None) -> None:
    old = make("a", PAIR), make("b", PAIR)
    form(*old)
    for member in old:
        member._settings = TRIO  # from now on there is room for one more
    if damage is None:
        folder_store.delete(KEY)
    else:
        folder_store.put(KEY, damage)
    newcomer = make("c", TRIO)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(newcomer.next_rendezvous)
        wait(lambda: old[0].num_nodes_waiting() == 1)
        assert not old[0].round_is_over()
        form(*old)
        joined.result()
    assert [member.label for member in newcomer.members] == [*(m.label for m in old[0].members[:2]), "c"]
    assert newcomer.round == old[0].round == 1


def test_members_that_gather_begin_afresh_past_their_round(folder_store: Store, make: Make) -> None:
    old = make("a", PAIR), make("b", PAIR)
    form(*old)
    folder_store.put(KEY, b"garbage")
    form(*old)
    assert old[0].round == old[1].round == 1
    assert group(folder_store).formed
