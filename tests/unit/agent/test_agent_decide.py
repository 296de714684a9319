from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from starling.infra.agent import decide as d
from starling.infra.agent import supervisor, uplink
from starling.infra.bootstrap import machine, service
from starling.infra.records import (
    Market,
    NodeIntent,
    NodeState,
    Notice,
    NoticeKind,
    Offer,
    Progress,
    RunState,
    StopRequest,
    Termination,
    Verdict,
)

NOW = 10_000.0
OFFER = Offer(provider="local", instance_type="local", zone="local", market=Market.SPOT, price_per_hour=1.0)
VERDICT = Verdict(state=RunState.DONE, at=NOW, by="node", reason="all epochs")
STOP = StopRequest(at=NOW, reason="the user said so")


def intent(**changes: Any) -> NodeIntent:
    base = NodeIntent(
        node="r.0.0", run="r", incarnation=0, slot=0, generation=0, offer=OFFER, wanted_at=0.0, authorised_until=None
    )
    return base.but(**changes)


def progress(**changes: Any) -> Progress:
    base = Progress(at=NOW - 1, step=7, total_steps=100, epoch=0, round=1, world_size=1, rank=0)
    return base.but(**changes)


def notice(kind: NoticeKind = NoticeKind.INTERRUPTION, at: float | None = NOW + 100) -> Notice:
    return Notice(id="n", kind=kind, seen_at=NOW, takes_effect_at=at)


RELIEVED = Termination(at=NOW - 1, reason="a rebalance was recommended; r.0.1 takes over")
BOOTING = d.Facts(booted_at=NOW - 100, stall=1800.0, idle=600.0, intent=intent())
PREPARED = replace(BOOTING, prepared=True)
JOINING = replace(PREPARED, supervisor=d.Supervised(started_at=NOW - 50), moved_at=NOW - 50)
LOADING = replace(JOINING, round_at=NOW - 40)
TRAINING = replace(JOINING, progress=progress(), moved_at=NOW - 1)


def crashed(facts: d.Facts = TRAINING, *, code: int = 1, crashes: int = 1, ago: float = 1.0) -> d.Facts:
    return replace(
        facts, supervisor=d.Supervised(started_at=NOW - 50, exit_code=code, ended_at=NOW - ago, crashes=crashes)
    )


def action(facts: d.Facts, now: float = NOW) -> d.Action | None:
    decision = d.decide(facts, now)
    assert decision.reason, "every decision says why"
    return decision.action


def end_reason(facts: d.Facts, now: float = NOW) -> str:
    found = action(facts, now)
    assert isinstance(found, d.End), found
    return found.reason


def test_an_undisturbed_node_boots_starts_joins_and_trains() -> None:
    assert action(BOOTING) is None
    assert action(PREPARED) == d.Start()
    assert action(JOINING) is None
    assert action(TRAINING) is None
    states = [d.state_of(facts) for facts in (BOOTING, PREPARED, JOINING, TRAINING)]
    assert states == [NodeState.BOOTING, NodeState.BOOTING, NodeState.JOINING, NodeState.TRAINING]


def test_progress_of_an_earlier_supervisor_is_no_sign_of_training() -> None:
    facts = replace(TRAINING, progress=progress(at=NOW - 51))
    assert d.state_of(facts) is NodeState.JOINING


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(BOOTING, unfit="GPU 3 is gone"), "unfit: GPU 3 is gone"),
        (replace(BOOTING, broken="pip says no"), "could not be prepared: pip says no"),
        (crashed(code=d.EXIT_VERDICT), "the run has ended"),
        (replace(crashed(code=d.EXIT_VERDICT), verdict=VERDICT), "the run is done"),
        (crashed(code=d.EXIT_LEFT), "left the run"),
        (
            replace(crashed(code=d.EXIT_LEFT), leave=d.LeaveAsked(reason="interruption notice", deadline=1.0)),
            "interruption",
        ),
        (replace(crashed(), leave=d.LeaveAsked(reason="terminated: x", deadline=1.0)), "crashed while leaving"),
        (replace(BOOTING, missing_since=NOW - 60), "records are gone"),
    ],
)
def test_reasons_to_end_at_once(facts: d.Facts, reason: str) -> None:
    assert reason in end_reason(facts)


def test_unfit_is_told_apart_from_other_ends() -> None:
    assert action(replace(BOOTING, unfit="GPU 3 is gone")) == d.End(
        reason="unfit: GPU 3 is gone", unfit="GPU 3 is gone"
    )


def test_preparing_has_its_own_limit() -> None:
    assert action(BOOTING, BOOTING.booted_at + d.BOOT_SECONDS) is None
    assert "not prepared" in end_reason(BOOTING, BOOTING.booted_at + d.BOOT_SECONDS + 1)
    patient = replace(BOOTING, idle=2 * d.BOOT_SECONDS)
    assert action(patient, BOOTING.booted_at + d.BOOT_SECONDS + 1) is None


def test_no_supervisor_starts_before_the_controllers_word_has_been_read() -> None:
    """The run may have ended, or be stopping: a supervisor would join a group that is no more."""
    unread = replace(PREPARED, intent=None)
    assert action(unread) is None
    over = replace(PREPARED, verdict=Verdict(state=RunState.DONE, at=NOW, by="n", reason="done"), verdict_seen_at=NOW)
    assert end_reason(over) == "the run is done"


@pytest.mark.parametrize(("crashes", "delay"), [(1, 0.0), (2, 1.0), (3, 3.0), (4, 7.0)])
def test_a_crashed_supervisor_is_restarted_ever_later(crashes: int, delay: float) -> None:
    facts = crashed(crashes=crashes, ago=0.0)
    if delay:
        assert action(facts, NOW + delay - 0.1) is None
    assert action(facts, NOW + delay) == d.Start()


def test_a_crash_loop_ends_the_node() -> None:
    assert "crashed 5 times in a row" in end_reason(crashed(crashes=d.MAX_CRASHES, code=-9))
    assert "signal 9" in end_reason(crashed(crashes=d.MAX_CRASHES, code=-9))


def test_after_a_verdict_the_supervisor_may_finish_for_a_while() -> None:
    facts = replace(TRAINING, verdict=VERDICT, verdict_seen_at=NOW)
    assert action(facts, NOW + d.VERDICT_SECONDS - 1) is None
    assert end_reason(facts, NOW + d.VERDICT_SECONDS) == "the run is done"
    assert end_reason(replace(PREPARED, verdict=VERDICT, verdict_seen_at=NOW)) == "the run is done"


def test_an_interruption_notice_drains_and_names_its_time() -> None:
    facts = replace(TRAINING, notice=notice())
    assert action(facts) == d.AskLeave(reason="interruption notice", deadline=NOW + 100)
    asked = replace(facts, leave=d.LeaveAsked(reason="interruption notice", deadline=NOW + 100))
    assert action(asked, NOW + 100) is None, "the hypervisor takes the machine, not we"
    assert d.state_of(asked) is NodeState.LEAVING
    assert end_reason(asked, NOW + 100 + d.INTERRUPTION_GRACE_SECONDS) == "interruption notice"


def test_a_node_on_notice_starts_nothing() -> None:
    assert end_reason(replace(PREPARED, notice=notice())) == "interruption notice"
    assert end_reason(replace(PREPARED, intent=intent(leave=RELIEVED))) == RELIEVED.reason


def test_a_rebalance_recommendation_alone_ends_nothing() -> None:
    for facts in (BOOTING, TRAINING):
        assert action(replace(facts, notice=notice(NoticeKind.REBALANCE, None))) == action(facts)


def test_a_node_that_is_relieved_has_all_the_time_it_needs_until_an_interruption_comes() -> None:
    facts = replace(TRAINING, intent=intent(leave=RELIEVED), notice=notice(NoticeKind.REBALANCE, None))
    assert action(facts) == d.AskLeave(reason=RELIEVED.reason, deadline=None)
    asked = replace(facts, leave=d.LeaveAsked(reason=RELIEVED.reason, deadline=None))
    assert action(asked, NOW + 1000) is None
    urgent = replace(asked, notice=notice())
    assert action(urgent) == d.AskLeave(reason="interruption notice", deadline=NOW + 100)


def test_a_terminated_node_drains_first_but_not_for_ever() -> None:
    facts = replace(TRAINING, intent=intent(terminate=Termination(at=NOW, reason="scale down")), terminate_seen_at=NOW)
    assert action(facts) == d.AskLeave(reason="terminated: scale down", deadline=NOW + d.MIN_DRAIN_SECONDS)
    asked = replace(facts, leave=d.LeaveAsked(reason="terminated: scale down", deadline=NOW + d.MIN_DRAIN_SECONDS))
    assert action(asked, NOW + d.MIN_DRAIN_SECONDS - 1) is None
    assert end_reason(asked, NOW + d.MIN_DRAIN_SECONDS) == "terminated: scale down"
    assert end_reason(replace(PREPARED, intent=facts.intent, terminate_seen_at=NOW)) == "terminated: scale down"


@pytest.mark.parametrize(("step", "drain"), [(None, 60.0), (1.0, 62.0), (45.0, 150.0), (3600.0, 600.0)])
def test_a_drain_may_take_longer_where_steps_are_long(step: float | None, drain: float) -> None:
    assert d.drain_seconds(replace(TRAINING, progress=progress(step_seconds=step))) == drain


def test_a_node_in_no_round_drains_briefly() -> None:
    assert d.drain_seconds(JOINING) == d.MIN_DRAIN_SECONDS


def test_a_script_gets_its_grace_period_besides() -> None:
    assert d.drain_seconds(replace(TRAINING, grace=300.0)) == d.drain_seconds(TRAINING) + 300.0


@pytest.mark.parametrize(("authorised", "margin"), [(100_000.0, 60.0), (NOW + 400 + 40, 44.0)])
def test_the_authorised_time_leaves_room_for_the_drain(authorised: float, margin: float) -> None:
    wanted_at = 0.0 if margin == 60.0 else NOW
    facts = replace(TRAINING, intent=intent(authorised_until=authorised, wanted_at=wanted_at))
    facts = replace(facts, progress=progress(at=authorised), moved_at=authorised)
    assert action(facts, authorised - margin - 1) is None
    assert action(facts, authorised - margin) == d.AskLeave(reason="authorised time is over", deadline=authorised)
    asked = replace(facts, leave=d.LeaveAsked(reason="authorised time is over", deadline=authorised))
    assert action(asked, authorised - 1) is None
    assert end_reason(asked, authorised) == "authorised time is over"


def test_an_extension_of_the_authorised_time_counts() -> None:
    facts = replace(TRAINING, intent=intent(authorised_until=NOW + 1))
    assert action(facts) is not None
    assert action(replace(facts, intent=intent(authorised_until=NOW + 7200))) is None


def test_no_controller_and_no_limit_is_no_reason_to_stop() -> None:
    much_later = NOW + 7 * 86_400
    facts = replace(TRAINING, progress=progress(at=much_later), moved_at=much_later, intent=intent())
    assert action(facts, much_later) is None


def test_a_stop_request_stops_the_run() -> None:
    facts = replace(TRAINING, stop=STOP)
    assert action(facts) == d.AskStop(reason="the user said so")
    asked = replace(facts, stop_asked_at=NOW)
    assert action(asked, NOW + 2 * d.MIN_DRAIN_SECONDS - 1) is None
    assert "took too long" in end_reason(asked, NOW + 2 * d.MIN_DRAIN_SECONDS)
    assert "asked to stop" in end_reason(replace(PREPARED, stop=STOP))


def test_a_notice_during_a_stop_is_still_told() -> None:
    facts = replace(TRAINING, stop=STOP, stop_asked_at=NOW, notice=notice())
    assert isinstance(action(facts), d.AskLeave)


def test_stall_counts_from_the_last_step_and_idle_from_the_last_activity() -> None:
    assert action(TRAINING, TRAINING.moved_at + TRAINING.stall) is None
    assert "stalled" in end_reason(TRAINING, TRAINING.moved_at + TRAINING.stall + 1)
    assert JOINING.supervisor is not None
    prepared_at = JOINING.supervisor.started_at
    assert prepared_at > JOINING.booted_at, "its preparation took a while, which is no idling"
    assert action(JOINING, prepared_at + JOINING.idle) is None
    assert "idle" in end_reason(JOINING, prepared_at + JOINING.idle + 1)
    again = replace(JOINING, progress=progress(at=NOW - 51))
    assert action(again, NOW - 51 + JOINING.idle) is None, "trained before its supervisor was restarted"


def test_a_shutdown_leaves_no_time_for_a_long_drain() -> None:
    """systemd kills what still runs after STOP_SECONDS; the agent's last words come out of them, too."""
    slow = replace(TRAINING, signalled_at=NOW, grace=300.0)
    assert d.drain_seconds(slow) > d.SHUTDOWN_SECONDS
    asked = d.decide(slow, NOW)
    assert asked.action == d.AskLeave(reason="the machine shuts down (SIGTERM)", deadline=NOW + d.SHUTDOWN_SECONDS)
    left = replace(slow, leave=d.LeaveAsked(reason=asked.reason, deadline=NOW + d.SHUTDOWN_SECONDS))
    assert d.decide(left, NOW + d.SHUTDOWN_SECONDS - 1).action is None
    assert isinstance(d.decide(left, NOW + d.SHUTDOWN_SECONDS).action, d.End)
    last_words = uplink.CLOSE_SECONDS + supervisor.OUTPUT_END_SECONDS + service.OUTPUT_END_SECONDS
    assert d.SHUTDOWN_SECONDS + last_words < machine.STOP_SECONDS


def test_a_shutdown_of_the_machine_drains() -> None:
    facts = replace(TRAINING, signalled_at=NOW)
    assert action(facts) == d.AskLeave(reason="the machine shuts down (SIGTERM)", deadline=NOW + 60)


def test_a_node_that_loads_its_data_is_in_a_round_and_not_idle() -> None:
    later = NOW + 1000
    assert isinstance(d.decide(JOINING, later).action, d.End), "in no round for longer than limits.idle"
    assert d.decide(LOADING, later).action is None
    stalled = d.decide(LOADING, NOW + 1800).action
    assert isinstance(stalled, d.End)
    assert "stalled" in stalled.reason


def test_an_evaluation_however_long_is_no_standstill() -> None:
    moving = replace(TRAINING, moved_at=NOW + 1999)
    assert d.decide(moving, NOW + 2000).action is None
    assert isinstance(d.decide(TRAINING, NOW + 2000).action, d.End)
