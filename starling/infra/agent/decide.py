"""What the agent should do next: a pure function of what it sees, which always says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from starling.infra.records import NodeIntent, NodeState, Notice, NoticeKind, Progress, StopRequest, Verdict
from starling.infra.supervision import EXIT_LEFT, EXIT_VERDICT

MAX_CRASHES = 5
"""So many crashes of the supervisor in a row without a step between them end the node."""
MAX_RESTART_DELAY_SECONDS = 30.0
VERDICT_SECONDS = 60.0
"""How long a supervisor may take to finish once its run has a verdict: it may have a state to hand over."""
MIN_DRAIN_SECONDS, MAX_DRAIN_SECONDS = 60.0, 600.0
SHUTDOWN_SECONDS = 110.0
"""At most this much is planned at a shutdown. systemd gives STOP_SECONDS (bootstrap/machine.py) for it and for the
node's last words."""
AUTHORISED_MARGIN = 0.1
"""At most this part of the authorised time is kept for the drain at its end."""
INTERRUPTION_GRACE_SECONDS = 30.0
"""A node that its hypervisor should have taken, but that still runs so much later, ends itself."""
MISSING_SECONDS = 60.0
"""A node whose records are gone from the store for so long belongs to nobody."""
BOOT_SECONDS = 1800.0
"""Preparing code and requirements takes at most this, or the idle limit if that is longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised:
    """The trainer's supervisor on this node."""

    started_at: float
    exit_code: int | None = None
    """None while it runs; negative: killed by that signal."""
    ended_at: float | None = None
    crashes: int = 0
    """In a row without a step between them, this one included if it has crashed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveAsked:
    """What was last written to control/leave."""

    reason: str
    deadline: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that the agent knows; times in epoch seconds, durations in seconds."""

    booted_at: float
    stall: float
    idle: float
    grace: float = 0.0
    """How long a script of the user's may take to save and end once it is asked to."""
    prepared: bool = False
    broken: str | None = None
    """Why code, requirements or spec could not be prepared."""
    unfit: str | None = None
    intent: NodeIntent | None = None
    terminate_seen_at: float | None = None
    missing_since: float | None = None
    stop: StopRequest | None = None
    stop_asked_at: float | None = None
    verdict: Verdict | None = None
    verdict_seen_at: float | None = None
    notice: Notice | None = None
    signalled_at: float | None = None
    """When the operating system asked the agent to stop (SIGTERM), e.g. at a shutdown."""
    supervisor: Supervised | None = None
    progress: Progress | None = None
    moved_at: float = 0.0
    """When step or round last changed, an evaluation or a script last showed life, or the supervisor was started."""
    round_at: float | None = None
    """When this node's newest round formed; its data may still be on the way then."""
    leave: LeaveAsked | None = None

    @property
    def running(self) -> bool:
        return self.supervisor is not None and self.supervisor.exit_code is None

    @property
    def training(self) -> bool:
        """Whether the running supervisor has taken part in a round."""
        return (
            self.running
            and self.progress is not None
            and self.supervisor is not None
            and self.progress.at >= self.supervisor.started_at
        )

    @property
    def loading(self) -> bool:
        """Whether the running supervisor's first round has formed, and its workers fetch what they need."""
        return (
            self.running
            and not self.training
            and self.round_at is not None
            and self.supervisor is not None
            and self.round_at >= self.supervisor.started_at
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Start the supervisor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskLeave:
    """Write control/leave: this node must go."""

    reason: str
    deadline: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AskStop:
    """Write control/stop: the whole run must stop."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """End this node, killing what still runs."""

    reason: str
    unfit: str | None = None


Action = Start | AskLeave | AskStop | End


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    action: Action | None
    reason: str


def decide(facts: Facts, now: float) -> Decision:
    """The first rule that has something to say wins; one action at a time, so look again soon after."""
    for rule in _RULES:
        if (decision := rule(facts, now)) is not None:
            return decision
    return Decision(action=None, reason=_doing(facts))


def state_of(facts: Facts) -> NodeState:
    """The node's state as its status tells it."""
    if facts.leave is not None or facts.stop_asked_at is not None or facts.verdict is not None:
        return NodeState.LEAVING
    if facts.training:
        return NodeState.TRAINING
    return NodeState.JOINING if facts.supervisor is not None else NodeState.BOOTING


def drain_seconds(facts: Facts) -> float:
    """How long a drain may take: it waits for a step boundary, then uploads a checkpoint."""
    if not facts.training:
        return MIN_DRAIN_SECONDS  # peers are to be told, and what an earlier round left may be to be handed over
    step = facts.progress.step_seconds if facts.progress is not None else None
    return facts.grace + min(2 * (step or 0.0) + MIN_DRAIN_SECONDS, MAX_DRAIN_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Departure:
    """One reason for this node to go."""

    reason: str
    deadline: float | None
    """Told to the supervisor."""
    end_at: float | None
    """From then on the node ends, drained or not; None: it is given all the time it needs."""


def _unusable(facts: Facts, now: float) -> Decision | None:
    if facts.unfit is not None:
        return _end(f"unfit: {facts.unfit}", unfit=facts.unfit)
    if facts.broken is not None:
        return _end(f"could not be prepared: {facts.broken}")
    limit = max(BOOT_SECONDS, facts.idle)
    if not facts.prepared and now - facts.booted_at > limit:
        return _end(f"was not prepared after {limit:.0f} s")
    return None


def _supervisor_ended(facts: Facts, now: float) -> Decision | None:
    supervisor = facts.supervisor
    if supervisor is None or supervisor.exit_code is None:
        return None
    if supervisor.exit_code == EXIT_VERDICT:
        return _end(_verdict_reason(facts))
    if supervisor.exit_code == EXIT_LEFT:
        return _end(facts.leave.reason if facts.leave is not None else "left the run")
    if facts.leave is not None:
        return _end(f"{facts.leave.reason} (supervisor crashed while leaving)")
    if supervisor.crashes >= MAX_CRASHES:
        return _end(f"supervisor crashed {supervisor.crashes} times in a row without a step ({_how(supervisor)})")
    return None


def _run_over(facts: Facts, now: float) -> Decision | None:
    if facts.verdict is None or facts.verdict_seen_at is None:
        return None
    left = facts.verdict_seen_at + VERDICT_SECONDS - now
    if not facts.running or left <= 0:
        return _end(_verdict_reason(facts))
    return Decision(action=None, reason="the run has a verdict; waiting for the supervisor to finish")


def _must_go(facts: Facts, now: float) -> Decision | None:
    for departure in _departures(facts, now):
        if not facts.running or (departure.end_at is not None and now >= departure.end_at):
            return _end(departure.reason)
        if _is_new(departure, facts.leave):
            return Decision(
                action=AskLeave(reason=departure.reason, deadline=departure.deadline), reason=departure.reason
            )
    return None


def _run_stops(facts: Facts, now: float) -> Decision | None:
    if facts.stop is None:
        return None
    reason = f"the run was asked to stop: {facts.stop.reason}"
    if not facts.running:
        return _end(reason)
    if facts.stop_asked_at is None:
        return Decision(action=AskStop(reason=facts.stop.reason), reason=reason)
    # Twice a drain: all nodes take part, and the last of them writes the verdict.
    return _end(f"{reason} (took too long)") if now >= facts.stop_asked_at + 2 * drain_seconds(facts) else None


def _useless(facts: Facts, now: float) -> Decision | None:
    if facts.missing_since is not None and now - facts.missing_since >= MISSING_SECONDS:
        return _end("its records are gone from the store")
    in_round = facts.training or facts.loading
    if in_round and now - max(facts.moved_at, facts.round_at or 0.0) > facts.stall:
        return _end(f"stalled: no progress for {facts.stall:.0f} s")
    if facts.supervisor is not None and not in_round and now - _active_at(facts) > facts.idle:
        return _end(f"idle: in no round for {facts.idle:.0f} s")
    return None


def _to_start(facts: Facts, now: float) -> Decision | None:
    supervisor = facts.supervisor
    if not facts.prepared or facts.running:
        return None
    if facts.intent is None:  # the run may have ended meanwhile, or be stopping
        return Decision(action=None, reason="prepared; waiting for the controller's word")
    if supervisor is None or supervisor.ended_at is None:
        return Decision(action=Start(), reason="prepared")
    delay = min(2.0 ** (supervisor.crashes - 1) - 1, MAX_RESTART_DELAY_SECONDS)
    reason = f"supervisor crashed ({_how(supervisor)}), {supervisor.crashes} in a row; restarting it"
    return Decision(action=Start() if now >= supervisor.ended_at + delay else None, reason=reason)


_RULES: tuple[Callable[[Facts, float], Decision | None], ...] = (
    _unusable,
    _supervisor_ended,
    _run_over,
    _must_go,
    _run_stops,
    _useless,
    _to_start,
)


def _departures(facts: Facts, now: float) -> Iterator[_Departure]:
    drain = drain_seconds(facts)
    intent = facts.intent
    if intent is not None and intent.terminate is not None and facts.terminate_seen_at is not None:
        yield _by(f"terminated: {intent.terminate.reason}", facts.terminate_seen_at + drain)
    if intent is not None and (until := intent.authorised_until) is not None:
        margin = min(drain, AUTHORISED_MARGIN * max(until - intent.wanted_at, 0.0))
        if now >= until - margin and (facts.training or now >= until):
            yield _by("authorised time is over", until)
    if facts.signalled_at is not None:
        yield _by("the machine shuts down (SIGTERM)", facts.signalled_at + min(drain, SHUTDOWN_SECONDS))
    if intent is not None and intent.leave is not None:
        # Nobody takes the machine at a known time, so a checkpoint under way is worth waiting for.
        yield _Departure(reason=intent.leave.reason, deadline=None, end_at=None)
    if facts.notice is not None and facts.notice.kind is NoticeKind.INTERRUPTION:  # else the controller's to judge
        yield _on_notice(facts.notice)


def _by(reason: str, at: float) -> _Departure:
    return _Departure(reason=reason, deadline=at, end_at=at)


def _on_notice(notice: Notice) -> _Departure:
    at = notice.takes_effect_at
    end_at = at + INTERRUPTION_GRACE_SECONDS if at is not None else None
    return _Departure(reason="interruption notice", deadline=at, end_at=end_at)


def _is_new(departure: _Departure, asked: LeaveAsked | None) -> bool:
    """Whether the supervisor must be told: not yet asked, or asked for a later time."""
    if asked is None:
        return True
    if departure.deadline is None:
        return False
    return asked.deadline is None or departure.deadline < asked.deadline - 1.0


def _end(reason: str, unfit: str | None = None) -> Decision:
    return Decision(action=End(reason=reason, unfit=unfit), reason=reason)


def _verdict_reason(facts: Facts) -> str:
    return "the run has ended" if facts.verdict is None else f"the run is {facts.verdict.state.value}"


def _active_at(facts: Facts) -> float:
    """It was busy until then: with its preparation, or in a round."""
    started_at = facts.supervisor.started_at if facts.supervisor is not None and not facts.supervisor.crashes else 0.0
    return max(facts.booted_at, started_at, facts.progress.at if facts.progress is not None else 0.0)


def _how(supervisor: Supervised) -> str:
    code = supervisor.exit_code or 0
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _doing(facts: Facts) -> str:
    if facts.leave is not None:
        return f"leaving: {facts.leave.reason}"
    if facts.stop_asked_at is not None:
        return "stopping"
    if facts.training:
        return "training"
    return "waiting for peers" if facts.running else "preparing"
