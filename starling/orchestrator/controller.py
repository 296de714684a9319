"""The controller: observe, decide, act, sleep, until the run is over. The only place that sleeps.

It keeps nothing that it needs: kill it between any two actions, start it again anywhere, run two of them at once.
It works for one incarnation: a resume may have come with another provider section, so it ends there, and `_control`
signs on again.

One node's life, as written here:

1. `Want` creates `intent.json` with the offers that the provider may choose from (create-only: racing controllers have
   one winner), and writes NODE_WANTED.
2. `Launch` launches (node, attempt), which never yields a second machine, whoever repeats it. What was bought goes into
   the intent, by whoever hears it first: us, or a successor that finds the machine in the provider's list
   (`RecordLaunched`). Its bill begins.
3. If every offer was refused for certain, those rest, and `NextAttempt` commits other ones under the next number,
   unless another controller has done so. After any other error the same attempt is made again.
4. `Terminate` commits the terminate intent, then releases. `RecordGone` notes its end: its bill ends.
5. `Forget` removes leftovers, after the verdict only, because they are what makes launching again harmless.
"""

from __future__ import annotations

import argparse
import sys

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import ProviderError, StarlingError, StoreAccessDenied, StoreError
from starling.infra.journal import Journal
from starling.infra.providers.base import Provider
from starling.infra.records import EventKind, RunRecord
from starling.infra.store import Store, open_store
from starling.orchestrator.acting import Hands, whoami
from starling.orchestrator.controller_lock import ControllerLock
from starling.orchestrator.decide import NEEDS_THE_USER, decide
from starling.orchestrator.observe import Observer
from starling.orchestrator.provisioning import provider_for
from starling.orchestrator.reading import RunReader
from starling.orchestrator.runs import change_run

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0


class Controller:
    """Buys and releases the machines of one incarnation of a run."""

    def __init__(self, store: Store, provider: Provider, run: str, clock: Clock, *, incarnation: int) -> None:
        """`provider`: made from the spec of this incarnation."""
        self._run = run
        self._incarnation = incarnation
        self._clock = clock
        self._journal = Journal(store, run, clock)
        self._observer = Observer(store, provider, run, clock)
        self._hands = Hands(store, provider, run, clock, self._observer)
        self._said = ""
        self._provider_trouble: set[str] = set()
        self._store_trouble: StoreError | None = None
        self._blind_since = 0.0
        self._failed_passes = 0

    def work(self) -> None:
        """Pass after pass until nothing is left to do. Raises StoreAccessDenied, and UsageError for an unknown run."""
        while (pause := self.one_pass()) is not None:
            self._clock.sleep(pause)

    def one_pass(self) -> float | None:
        """Observe, decide, act. Returns seconds until the next pass; None: this incarnation is finished, or over."""
        try:
            facts = self._observer.look()
            if facts.run.incarnation != self._incarnation:
                return None
            decision = decide(facts, self._clock.now())
            self._say(decision.reason)
            self._complain(facts.trouble)
            done = self._hands.carry_out(decision.actions)
            self._recover()
        except StoreError as error:
            return self._stumble(error)
        return None if done else decision.look_again_in

    def _say(self, reason: str) -> None:
        if reason != self._said:
            self._journal.write(EventKind.DECISION, self._run, reason)
            self._print(reason)
            self._said = reason

    def _complain(self, trouble: tuple[ProviderError, ...]) -> None:
        """Each kind once, until it has gone; what needs the user is part of the reason already."""
        kinds = {type(error).__name__: error for error in trouble if not isinstance(error, NEEDS_THE_USER)}
        for kind, error in kinds.items():
            if kind not in self._provider_trouble:
                self._journal.write(EventKind.DECISION, self._run, f"trying again after {kind}: {error}", error=kind)
                self._print(f"{kind}: {error}")
        self._provider_trouble = set(kinds)

    def _stumble(self, error: StoreError) -> float:
        """The store failed, to be read or to be written: say so once for each kind, wait longer each time."""
        # Silence until now means nothing: perhaps nodes could not write either.
        self._observer.lost_sight()
        if isinstance(error, StoreAccessDenied):
            raise error
        if type(error) is not type(self._store_trouble):
            self._print(f"{type(error).__name__}, trying again: {error}")
        if self._store_trouble is None:
            self._blind_since = self._clock.now()
        self._store_trouble = error
        pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self._failed_passes, 10))
        self._failed_passes += 1
        return pause

    def _recover(self) -> None:
        """A pass succeeded: what could not be journaled while the store was away is told now."""
        if self._store_trouble is not None:
            kind, away = type(self._store_trouble).__name__, self._clock.now() - self._blind_since
            said = f"went on after {away:.0f} s without the store: {self._store_trouble}"
            self._journal.write(EventKind.DECISION, self._run, said, error=kind)
            self._print(said)
        self._store_trouble = None
        self._failed_passes = 0

    def _print(self, text: str) -> None:
        print(f"{self._clock.now():.1f} {text}", flush=True)


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
            Controller(store, provider, run, SystemClock(), incarnation=record.incarnation).work()
        finally:
            lock.release()
        # A resume that saw our lock relies on us. One that comes after this look finds the lock free.
        if RunReader(store, run).record().incarnation == record.incarnation:
            return 0
    print(f"another controller of {run} works on this machine")
    return 0


def _sign_on(store: Store, run: str) -> RunRecord:
    record = change_run(store, run, lambda record: record.but(controller=whoami()))
    Journal(store, run).write(EventKind.CONTROLLER_STARTED, run, whoami(), incarnation=record.incarnation)
    return record


if __name__ == "__main__":
    sys.exit(main())
