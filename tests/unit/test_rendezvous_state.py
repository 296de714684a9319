"""Group formation: a model check over random arrivals, deaths and departures, and the cases people ask about."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from starling.trainer.rendezvous_state import Arrival, Group, Member, Standing, arrive, depart


def member(name: str) -> Member:
    return Member(id=name, address="127.0.0.1", master_port=1, pulse_port=2, label=name)


def come(group: Group, name: str, *, dead: str = "", left: int = -1, least: int = 1, most: int = 4, over: bool = False):  # type: ignore[no-untyped-def]
    arrival = Arrival(member=member(name), left_round=left)
    return arrive(group, arrival, frozenset(dead.split()), least=least, most=most, window_over=over)


def formed(*names: str, round_: int = 0) -> Group:
    members = tuple(replace(member(name), seniority=index) for index, name in enumerate(names))
    return Group(round=round_, formed=True, members=members, open_window=False, arrivals=len(names))


def test_the_first_group_waits_for_its_window_unless_it_is_full() -> None:
    group, standing = come(Group(), "a", most=2)
    assert standing is Standing.GATHERING
    assert come(group, "a", most=2, over=True)[1] is Standing.FORMED
    group, standing = come(group, "b", most=2)
    assert standing is Standing.FORMED
    assert [m.id for m in group.members] == ["a", "b"]


def test_too_few_nodes_never_form() -> None:
    group, standing = come(Group(), "a", least=2, over=True)
    assert standing is Standing.GATHERING
    assert come(group, "b", least=2, over=True)[1] is Standing.FORMED


def test_survivors_form_at_once_when_all_who_live_are_back() -> None:
    group, standing = come(formed("a", "b", "c"), "b", left=0)
    assert (standing, group.round) == (Standing.GATHERING, 1)
    group, standing = come(group, "c", left=0, dead="a")
    assert standing is Standing.FORMED
    assert [m.id for m in group.members] == ["b", "c"]


def test_survivors_wait_for_one_that_is_not_known_to_be_dead() -> None:
    group, _ = come(formed("a", "b", "c"), "b", left=0)
    group, standing = come(group, "c", left=0)
    assert standing is Standing.GATHERING
    assert come(group, "c", left=0, over=True)[1] is Standing.FORMED


def test_a_sole_survivor_trains_on_alone() -> None:
    group, _ = come(formed("a", "b"), "b", left=0)
    assert come(group, "b", left=0, dead="a")[1] is Standing.FORMED


def test_a_newcomer_is_let_in_with_the_next_round_and_ranks_last() -> None:
    group, standing = come(formed("a", "b"), "x")
    assert standing is Standing.WAITING
    group, _ = come(group, "b", left=0)
    group, standing = come(group, "a", left=0)
    assert standing is Standing.GATHERING, "the newcomer is expected"
    group, standing = come(group, "x")
    assert standing is Standing.FORMED
    assert [m.id for m in group.members] == ["b", "a", "x"] or [m.id for m in group.members] == ["a", "b", "x"]


def test_a_full_group_makes_a_spare_of_the_next() -> None:
    group, standing = come(formed("a", "b"), "x", most=2)
    assert standing is Standing.SPARE
    assert group == formed("a", "b")


def test_a_newcomer_breaks_a_round_of_which_a_member_is_dead() -> None:
    group, standing = come(formed("a", "b"), "x", dead="a b")
    assert (standing, group.round, group.open_window) == (Standing.GATHERING, 1, True)


def test_who_stands_in_line_is_brought_along_unless_dead() -> None:
    line = [Arrival(member=member(name), left_round=-1) for name in "bcd"]
    me = Arrival(member=member("a"), left_round=-1)
    group, standing = arrive(Group(), me, frozenset("c"), least=1, most=3, window_over=False, others=line)
    assert standing is Standing.FORMED
    assert [m.id for m in group.members] == ["a", "b", "d"]


def test_newcomers_in_line_wait_together() -> None:
    line = [Arrival(member=member(name), left_round=-1) for name in "yz"]
    me = Arrival(member=member("x"), left_round=-1)
    group, standing = arrive(formed("a", "b"), me, frozenset(), least=1, most=9, window_over=False, others=line)
    assert standing is Standing.WAITING
    assert [m.id for m in group.waiting] == ["x", "y", "z"]


def test_an_arrival_survives_the_store() -> None:
    arrival = Arrival(member=member("a"), left_round=3)
    assert Arrival.from_bytes(arrival.to_bytes()) == arrival


def test_closed_is_closed() -> None:
    assert come(replace(formed("a"), closed=True), "x")[1] is Standing.CLOSED


def test_who_departs_is_not_waited_for() -> None:
    group, _ = come(formed("a", "b"), "a", left=0)
    group = depart(group, "b")
    assert come(group, "a", left=0)[1] is Standing.FORMED


def test_the_state_survives_the_store() -> None:
    group, _ = come(formed("a", "b"), "x")
    assert Group.from_bytes(group.to_bytes()) == group
    assert group.to_bytes() != group.to_bytes(), "two writes must never have the same version"


@settings(max_examples=300)
@given(st.data())
def test_any_history_leads_to_one_agreed_round(data: st.DataObject) -> None:
    """Nodes look in any order, die, and come back from rounds; whoever lives ends in one formed round together."""
    names = [f"n{i}" for i in range(data.draw(st.integers(1, 5)))]
    alive, left = set(names), dict.fromkeys(names, -1)
    group = Group()

    def look(name: str, over: bool) -> Standing:
        nonlocal group
        seniority = next((m.seniority for m in group.members if m.id == name), -1)
        me = replace(member(name), seniority=seniority)
        before = group.round
        dead = frozenset(set(names) - alive)
        arrival = Arrival(member=me, left_round=left[name])
        # Whoever is not training may stand in line, the dead included, and be brought along.
        idle = [n for n in names if n != name and (group.rank_of(n) is None or left[n] == group.round)]
        others = [Arrival(member=member(n), left_round=left[n]) for n in idle if data.draw(st.booleans())]
        group, standing = arrive(group, arrival, dead, least=1, most=3, window_over=over, others=others)
        assert group.round >= before
        assert len(group.members) <= 3
        ids = [m.id for m in group.members]
        assert len(ids) == len(set(ids))
        return standing

    for _ in range(data.draw(st.integers(0, 30))):
        name = data.draw(st.sampled_from(names))
        event = data.draw(st.sampled_from(["look", "look", "look", "over", "die", "lose"]))
        if event == "die" and len(alive) > 1:
            alive.discard(name)
        elif name in alive and event == "lose":
            left[name] = group.round if group.rank_of(name) is not None else left[name]
        elif name in alive:
            look(name, over=event == "over")

    standings = {}
    for _ in range(6):
        for name in sorted(alive):
            # A member of a formed round with a dead peer loses it and comes back.
            ids = {m.id for m in group.members}
            if group.rank_of(name) is not None and ids - alive:
                left[name] = group.round
            standings[name] = look(name, over=True)
    assert group.formed
    inside = {m.id for m in group.members}
    assert inside <= alive
    assert {name for name, standing in standings.items() if standing is Standing.FORMED} == inside
    assert all(standings[name] in (Standing.WAITING, Standing.SPARE) for name in alive - inside)
