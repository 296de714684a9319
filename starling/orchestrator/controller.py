"""The controller: observe, decide, act, sleep, until the run is over. The only place that sleeps.

It keeps nothing that it needs: kill it between any two actions, start it again anywhere, run two of them at once.

One node's life, as written here:

1. `Launch` creates `intent.json` (create-only: racing controllers have one winner), writes NODE_WANTED, then launches.
   Killed in between, the next pass finds an intent without a machine and launches again.
2. `RecordLaunched` notes when the provider started it: its bill begins.
3. `Terminate` commits the terminate intent, then releases. `RecordGone` notes its end: its bill ends.
4. `Forget` removes leftovers, after the verdict only, because they are what makes launching again harmless.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable, Iterable

from starling.infra import layout
from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import (
    NoCapacity,
    ObjectExists,
    ObjectNotFound,
    ProviderError,
    StarlingError,
    StoreAccessDenied,
    StoreError,
)
from starling.infra.journal import Journal
from starling.infra.providers.base import Provider
from starling.infra.records import EventKind, NodeIntent, RunRecord, Termination, Verdict
from starling.infra.store import Store, open_store
from starling.infra.store.change import change_object
from starling.infra.verdicts import create_verdict
from starling.orchestrator.actions import (
    Action,
    Authorise,
    Finish,
    Forget,
    GiveVerdict,
    Launch,
    RecordGone,
    RecordLaunched,
    RequestStop,
    Terminate,
    TerminateStray,
)
from starling.orchestrator.controller_lock import ControllerLock
from starling.orchestrator.decide import decide
from starling.orchestrator.observe import Observer
from starling.orchestrator.provisioning import provider_for
from starling.orchestrator.reading import RunReader
from starling.orchestrator.runs import change_run, request_stop

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0


class Controller:
    """Buys and releases the machines of one run."""

    def __init__(self, store: Store, provider: Provider, run: str, clock: Clock) -> None:
        self._store = store
        self._provider = provider
        self._run = run
        self._clock = clock
        self._journal = Journal(store, run, clock)
        self._observer = Observer(store, provider, run)
        self._said = ""
        self._trouble = ""
        self._failed_passes = 0

    def work(self) -> None:
        """Pass after pass until nothing is left to do. Raises StoreAccessDenied, and UsageError for an unknown run."""
        while (pause := self.one_pass()) is not None:
            self._clock.sleep(pause)

    def one_pass(self) -> float | None:
        """Observe, decide, act. Returns seconds until the next pass; None: this incarnation is finished."""
        try:
            facts = self._observer.look(self._clock.now())
            decision = decide(facts, self._clock.now())
            self._say(decision.reason)
        except (StoreError, ProviderError) as error:
            # Silence until now means nothing: perhaps nodes could not write either.
            self._observer.lost_sight()
            return self._stumble(error)
        try:
            done, trouble = self._act_all(decision.actions)
        except StoreError as error:
            return self._stumble(error)
        if trouble is not None:
            return self._stumble(trouble)
        self._failed_passes = 0
        self._trouble = ""
        return None if done else decision.look_again_in

    def _act_all(self, actions: Iterable[Action]) -> tuple[bool, ProviderError | None]:
        """Whether we are finished, and what the provider refused; one refusal does not keep the rest from happening."""
        trouble = None
        for action in actions:
            if isinstance(action, Finish):
                return True, trouble
            try:
                self._act(action)
            except ProviderError as error:
                trouble = error
        return False, trouble

    def _say(self, reason: str) -> None:
        if reason != self._said:
            self._journal.write(EventKind.DECISION, self._run, reason)
            print(f"{self._clock.now():.1f} {reason}", flush=True)
            self._said = reason

    def _stumble(self, error: StarlingError) -> float:
        """Something failed: say so once for each kind in a row, wait longer each time."""
        if isinstance(error, StoreAccessDenied):
            raise error
        pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self._failed_passes, 10))
        self._failed_passes += 1
        self._complain(error)
        return pause

    def _complain(self, error: StarlingError) -> None:
        kind = type(error).__name__
        print(f"{self._clock.now():.1f} {kind}: {error}", file=sys.stderr, flush=True)
        if kind == self._trouble:
            return
        try:
            self._journal.write(EventKind.DECISION, self._run, f"trying again after {kind}: {error}", error=kind)
            self._trouble = kind
        except StoreError as again:
            print(f"{self._clock.now():.1f} not in the journal, because: {again}", file=sys.stderr, flush=True)

    def _act(self, action: Action) -> None:
        match action:
            case Launch():
                self._launch(action)
            case Authorise(node=node, until=until):
                self._change(node, lambda intent: intent.but(authorised_until=until))
            case Terminate(node=node, reason=reason):
                self._terminate(node, reason)
            case TerminateStray(intent=intent, reason=reason):
                self._terminate_stray(intent, reason)
            case RecordLaunched(node=node, at=at):
                self._change(node, lambda intent: intent if intent.launched_at else intent.but(launched_at=at))
            case RecordGone():
                self._record_gone(action)
            case RequestStop(reason=reason, incarnation=incarnation):
                request_stop(self._store, self._run, reason, self._clock, incarnation=incarnation)
            case GiveVerdict():
                self._give_verdict(action)
            case Forget(node=node):
                self._provider.forget(node)
            case Finish():
                raise AssertionError("one_pass ends with Finish")

    def _launch(self, action: Launch) -> None:
        intent = action.intent
        if action.new:
            try:
                self._store.create(layout.intent(intent.node), intent.to_bytes())
            except ObjectExists:
                return  # another controller was first, and launches it
            self._journal.write(EventKind.NODE_WANTED, intent.node, action.reason, offer=intent.offer.model_dump())
        # We may have slept since we looked: never launch what has been taken back or has ended in the meantime.
        intent = NodeIntent.from_bytes(self._store.get(layout.intent(intent.node)).data)
        if intent.terminate is not None or intent.gone_at is not None or intent.launched_at is not None:
            return
        try:
            self._provider.launch(intent, self._store.uri)
            self._observer.launched(intent.node)
        except ProviderError as error:
            first = self._observer.refused(intent.node, self._clock.now())
            if not isinstance(error, NoCapacity):
                raise
            if first:  # waiting for capacity is no trouble, but worth a word
                self._complain(error)

    def _terminate(self, node: str, reason: str) -> None:
        word = Termination(at=self._clock.now(), reason=reason)
        self._change(node, lambda intent: intent if intent.terminate else intent.but(terminate=word))
        self._provider.terminate(node)

    def _terminate_stray(self, intent: NodeIntent, reason: str) -> None:
        try:
            self._store.create(layout.intent(intent.node), intent.to_bytes())
        except ObjectExists:
            return  # it has an intent by now: no stray, or another controller ends it
        self._journal.write(EventKind.NODE_ENDED, intent.node, f"released: {reason}")
        self._provider.terminate(intent.node)

    def _record_gone(self, action: RecordGone) -> None:
        recorded = self._change(
            action.node,
            lambda intent: (
                intent if intent.gone_at is not None else intent.but(gone_at=action.at, gone_reason=action.reason)
            ),
        )
        if recorded and not action.agent_said_so:
            self._journal.write(EventKind.NODE_ENDED, action.node, action.reason, at=action.at, by="controller")

    def _give_verdict(self, action: GiveVerdict) -> None:
        verdict = Verdict(
            state=action.state,
            at=self._clock.now(),
            by=f"controller {_whoami()}",
            reason=action.reason,
            traceback=action.traceback,
        )
        create_verdict(self._store, self._run, action.incarnation, verdict, self._clock)

    def _change(self, node: str, change: Callable[[NodeIntent], NodeIntent]) -> bool:
        """Rewrite a node's intent as it is now; False if there was nothing to change."""

        def rewrite(data: bytes | None) -> bytes:
            if data is None:
                raise ObjectNotFound(f"the intent of {node} is gone")
            return change(NodeIntent.from_bytes(data)).to_bytes()

        before, after = change_object(self._store, layout.intent(node), rewrite)
        return before != after


def main(arguments: list[str] | None = None) -> int:
    """Control a run until it is over; `python -m starling.orchestrator.controller RUN --store URI`."""
    parser = argparse.ArgumentParser(prog="starling-controller", description=main.__doc__)
    parser.add_argument("run")
    parser.add_argument("--store", required=True)
    given = parser.parse_args(arguments)
    try:
        return _control(open_store(given.store), given.run)
    except StarlingError as error:
        print(f"the controller of {given.run} ends: {error}", file=sys.stderr)
        return error.exit_code


def _control(store: Store, run: str) -> int:
    lock = ControllerLock(run, store.uri)
    while lock.acquire():
        try:
            record = _sign_on(store, run)
            section = RunReader(store, run).spec(record).provider.model_dump()
            provider = provider_for(section, store.uri)
            Controller(store, provider, run, SystemClock()).work()
        finally:
            lock.release()
        # A resume that saw our lock relies on us. One that comes after this look finds the lock free.
        if RunReader(store, run).record().incarnation == record.incarnation:
            return 0
    print(f"another controller of {run} works on this machine")
    return 0


def _sign_on(store: Store, run: str) -> RunRecord:
    record = change_run(store, run, lambda record: record.but(controller=_whoami()))
    Journal(store, run).write(EventKind.CONTROLLER_STARTED, run, _whoami(), incarnation=record.incarnation)
    return record


def _whoami() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


if __name__ == "__main__":
    sys.exit(main())
