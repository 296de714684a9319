"""The agent's loop: observe, decide, act. It is the only part of the agent that sleeps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from starling.infra.agent.control import WorkFolder
from starling.infra.agent.decide import (
    AskLeave,
    AskStop,
    Decision,
    End,
    Facts,
    LeaveAsked,
    Start,
    Supervised,
    decide,
    state_of,
)
from starling.infra.agent.output import LogBuffer
from starling.infra.agent.prepare import Broken, Outcome, Preparation, Prepared, Unfit
from starling.infra.agent.supervisor import SupervisorProcess
from starling.infra.agent.uplink import Uplink
from starling.infra.clock import Clock
from starling.infra.files import write_atomically
from starling.infra.imds.notices import NoticeWatch
from starling.infra.records import EventKind, NodeEnd, NodeState, NodeStatus, Progress
from starling.infra.supervision import EXIT_UNFIT

TICK_SECONDS = 0.2
BOOT_LIMIT_SECONDS = 600.0
"""Stands for the spec's stall and idle limits until the spec is known."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Who this agent is and how it works."""

    node: str
    run: str
    folder: Path
    address: str
    instance_id: str
    supervisor_module: str | None
    """What trains, run as `python -m`; None: what the spec asks for."""
    notice_poll: float
    """Seconds between two looks for a notice."""
    marks: dict[str, str]
    """The environment by which all processes of the node are known."""

    @property
    def work(self) -> WorkFolder:
        return WorkFolder(self.folder / "work" / self.run)


class Agent:
    """One node's agent, from boot to its end."""

    def __init__(
        self,
        settings: Settings,
        *,
        uplink: Uplink,
        notices: NoticeWatch,
        logs: LogBuffer,
        prepare: Callable[[], Outcome],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._uplink = uplink
        self._notices = notices
        self._logs = logs
        self._clock = clock
        self._preparation = Preparation(prepare)
        self._prepared: Prepared | None = None
        self._supervisor: SupervisorProcess | None = None
        self._crashed_at: tuple[object, ...] | None = None
        self._next_notice_poll = 0.0
        self._state: NodeState | None = None
        self._reason = ""
        now = clock.now()
        self._facts = Facts(booted_at=now, stall=BOOT_LIMIT_SECONDS, idle=BOOT_LIMIT_SECONDS)
        self.shutdown_asked = False
        """Set by a signal handler: the operating system wants the agent to end."""

    def run(self) -> str:
        """Serve until the node must end; return why. The caller then powers off."""
        self._uplink.start()
        node = self._settings
        self._uplink.event(EventKind.NODE_UP, "agent is up", address=node.address, instance_id=node.instance_id)
        while True:
            self._observe()
            decision = decide(self._facts, self._clock.now())
            self._tell(decision)
            if isinstance(decision.action, End):
                return self._end(decision.action)
            self._act(decision)
            self._clock.sleep(TICK_SECONDS)

    def _observe(self) -> None:
        now = self._clock.now()
        self._observe_preparation()
        self._observe_store(now)
        self._observe_notice(now)
        self._observe_supervisor(now)
        self._observe_progress(now)
        if self.shutdown_asked and self._facts.signalled_at is None:
            self._know(signalled_at=now)

    def _observe_preparation(self) -> None:
        if self._prepared is not None:
            return
        match self._preparation.poll():
            case Prepared() as prepared:
                self._prepared = prepared
                self._know(prepared=True, stall=prepared.stall, idle=prepared.idle, grace=prepared.grace)
            case Unfit(reason=reason):
                self._know(unfit=reason)
            case Broken(reason=reason):
                self._know(broken=reason)

    def _observe_store(self, now: float) -> None:
        remote, facts = self._uplink.remote(), self._facts
        terminated = remote.intent is not None and remote.intent.terminate is not None
        self._know(
            intent=remote.intent,
            stop=remote.stop,
            missing_since=remote.missing_since,
            verdict=remote.verdict,
            verdict_seen_at=facts.verdict_seen_at or (now if remote.verdict is not None else None),
            terminate_seen_at=facts.terminate_seen_at or (now if terminated else None),
        )

    def _observe_notice(self, now: float) -> None:
        if now < self._next_notice_poll:
            return
        self._next_notice_poll = now + self._settings.notice_poll
        notice = self._notices.look(now)
        if notice is not None and notice != self._facts.notice:
            self._know(notice=notice)
            self._uplink.event(
                EventKind.NODE_NOTICE,
                f"{notice.kind.value} notice",
                kind=notice.kind.value,
                takes_effect_at=notice.takes_effect_at,
            )

    def _observe_supervisor(self, now: float) -> None:
        known = self._facts.supervisor
        if self._supervisor is None or known is None or known.exit_code is not None:
            return
        if (exit_code := self._supervisor.exit_code()) is None:
            return
        self._supervisor.clear()
        self._observe_progress(now)  # its last word, before its end counts as one without progress
        progress = self._facts.progress
        reached = (progress.step, progress.snapshot) if progress is not None else None
        crashes = known.crashes + 1 if reached == self._crashed_at else 1
        self._crashed_at = reached
        self._know(supervisor=replace(known, exit_code=exit_code, ended_at=now, crashes=crashes))
        if exit_code == EXIT_UNFIT:
            self._know(unfit=self._settings.work.unfit())

    def _observe_progress(self, now: float) -> None:
        self._know(round_at=self._settings.work.round_at())
        progress, before = self._settings.work.progress(), self._facts.progress
        if progress is None or progress == before:
            return
        if before is None or _life(progress) != _life(before):
            self._know(moved_at=now)
        self._know(progress=progress)

    def _tell(self, decision: Decision) -> None:
        """Log the reason and publish the status, each when it changes."""
        if decision.reason != self._reason:
            self._reason = decision.reason
            _log.info("%s", decision.reason)
        state = state_of(self._facts)
        self._uplink.publish(self._status(state), at_once=state is not self._state)
        self._state = state

    def _act(self, decision: Decision) -> None:
        match decision.action:
            case Start():
                self._start_supervisor()
            case AskLeave(reason=reason, deadline=deadline):
                self._settings.work.ask_leave(reason, deadline)
                self._know(leave=LeaveAsked(reason=reason, deadline=deadline))
            case AskStop(reason=reason):
                self._settings.work.ask_stop(reason)
                self._know(stop_asked_at=self._clock.now())

    def _start_supervisor(self) -> None:
        assert self._prepared is not None
        before = self._facts.supervisor
        now = self._clock.now()
        self._know(supervisor=Supervised(started_at=now, crashes=before.crashes if before else 0), moved_at=now)
        self._supervisor = SupervisorProcess(
            module=self._settings.supervisor_module or self._prepared.supervisor_module,
            job_file=self._prepared.job_file,
            python_path=self._prepared.python_path,
            marks=self._settings.marks,
            sink=self._logs.write,
        )
        _log.info("supervisor started: pid %d", self._supervisor.pid)

    def _end(self, end: End) -> str:
        """In this order: nothing trains any more, the machine is told why, the store has the node's last words."""
        if self._supervisor is not None:
            self._supervisor.clear()
        self._observe_progress(self._clock.now())
        write_atomically(self._settings.folder / "poweroff.txt", end.reason.encode())
        self._uplink.event(EventKind.NODE_ENDED, end.reason)
        last = NodeEnd(at=self._clock.now(), reason=end.reason)
        self._uplink.publish(self._status(NodeState.ENDED).but(ended=last, unfit=end.unfit))
        if not self._uplink.close():
            _log.warning("the store did not take the node's last words")
        return end.reason

    def _status(self, state: NodeState) -> NodeStatus:
        facts, node = self._facts, self._settings
        return NodeStatus(
            node=node.node,
            run=node.run,
            state=state,
            at=self._clock.now(),
            booted_at=facts.booted_at,
            address=node.address,
            instance_id=node.instance_id,
            notice=facts.notice,
            progress=facts.progress,
            unfit=facts.unfit,
        )

    def _know(self, **changes: object) -> None:
        self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]  # fields are checked where they are set


def _life(progress: Progress) -> tuple[object, ...]:
    """What changes as long as training, or a script, makes progress."""
    return progress.step, progress.round, progress.active_at, progress.snapshot
