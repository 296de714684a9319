"""Carries out what was decided. The order of one pass, and why:

1. What concerns the store only, in the order decided. Every word (intents of new nodes, next attempts, terminate
   intents) is committed before anybody acts on it: killed now, our successor does so.
2. All releases, in one call to the provider: what is paid for in vain ends first.
3. All launches, side by side, each as its intent says at that moment: it may have been taken back since we looked.
4. Each answer is written down as it comes: what was bought, or what was refused. Killed before, the next pass finds the
   machine in the provider's list, or asks for the same attempt again, which yields the same.
5. Clearing up, after the verdict only: what is left of ended machines is what makes launching again harmless.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from starling.infra import layout
from starling.infra.clock import Clock
from starling.infra.errors import (
    Misconfigured,
    NoCapacity,
    NotAuthorised,
    ObjectExists,
    ObjectNotFound,
    ProviderError,
    Refusal,
    StoreError,
)
from starling.infra.journal import Journal
from starling.infra.providers.base import Launched, Provider
from starling.infra.records import EventKind, NodeIntent, Offer, PriceChange, Termination, Verdict
from starling.infra.store import Store
from starling.infra.store.change import change_object
from starling.infra.verdicts import create_verdict
from starling.orchestrator.actions import (
    Action,
    Authorise,
    Finish,
    Forget,
    GiveVerdict,
    Launch,
    NextAttempt,
    RecordGone,
    RecordLaunched,
    RecordPrice,
    Relieve,
    RequestStop,
    Terminate,
    TerminateStray,
    Want,
)
from starling.orchestrator.observe import RELEASE, Observer
from starling.orchestrator.runs import request_stop

CLOSE = "close"
_NAMED = 5
"""So many refused offers are named in a line of the journal; its data has them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What came of one launch."""

    intent: NodeIntent
    asked_at: float
    said: Launched | ProviderError


class Hands:
    """Acts for one run. What the provider refuses goes to the observer, and is known at the next look."""

    def __init__(self, store: Store, provider: Provider, run: str, clock: Clock, observer: Observer) -> None:
        self._store = store
        self._provider = provider
        self._run = run
        self._clock = clock
        self._observer = observer
        self._journal = Journal(store, run, clock)

    def carry_out(self, actions: Sequence[Action]) -> bool:
        """True if nothing is left to do for this incarnation. Raises StoreError."""
        released = [node for action in actions if (node := self._write(action)) is not None]
        if released:
            self._release([*dict.fromkeys(released)])
        self._launch_all([action.node for action in actions if isinstance(action, Launch)])
        for action in actions:
            if isinstance(action, Forget) and not self._forget(action.node):
                return False
        return any(isinstance(action, Finish) for action in actions) and self._close()

    def _write(self, action: Action) -> str | None:
        """Commit one action's word to the store; returns a node that is to be released now."""
        match action:
            case Want():
                self._want(action)
            case NextAttempt():
                self._attempt(action)
            case Authorise(node=node, until=until):
                self._change(node, lambda intent: intent.but(authorised_until=until))
            case Relieve(node=node, reason=reason):
                word = Termination(at=self._clock.now(), reason=reason)
                self._change(node, lambda intent: intent if intent.leave else intent.but(leave=word))
            case RecordPrice(node=node, at=at, price_per_hour=price):
                change = PriceChange(at=at, price_per_hour=price)
                self._change(node, lambda intent: intent.but(prices=(*intent.prices, change)))
            case Terminate(node=node, reason=reason):
                word = Termination(at=self._clock.now(), reason=reason)
                self._change(node, lambda intent: intent if intent.terminate else intent.but(terminate=word))
                return node
            case TerminateStray():
                return self._claim_stray(action)
            case RecordLaunched():
                self._record_launched(action)
            case RecordGone():
                self._record_gone(action)
            case RequestStop(reason=reason, incarnation=incarnation):
                request_stop(self._store, self._run, reason, self._clock, incarnation=incarnation)
            case GiveVerdict():
                self._give_verdict(action)
            case Launch() | Forget() | Finish():
                pass  # carry_out's
        return None

    def _want(self, action: Want) -> None:
        intent = action.intent
        try:
            self._store.create(layout.intent(intent.node), intent.to_bytes())
        except ObjectExists:
            return  # another controller was first; we launch what it wants, which adds nothing to its own launch
        self._journal.write(EventKind.NODE_WANTED, intent.node, action.reason, offer=intent.offer.model_dump())

    def _attempt(self, action: NextAttempt) -> None:
        wanted = action.intent

        def unless_overtaken(now: NodeIntent) -> NodeIntent:
            if now.attempt != wanted.attempt - 1 or not _launchable(now):
                return now
            return now.but(
                attempt=wanted.attempt,
                candidates=wanted.candidates,
                offer=wanted.offer,
                authorised_until=wanted.authorised_until,
            )

        self._change(wanted.node, unless_overtaken)

    def _release(self, nodes: list[str]) -> None:
        if not self._observer.may_call(RELEASE, self._clock.now()):
            return
        try:
            self._provider.terminate(nodes)
        except ProviderError as error:
            self._observer.call_failed(RELEASE, error, self._clock.now())
            return
        self._observer.call_succeeded(RELEASE)
        self._observer.released(nodes, self._clock.now())

    def _launch_all(self, nodes: list[str]) -> None:
        if not nodes:
            return
        failed: StoreError | None = None
        with ThreadPoolExecutor(max(1, self._provider.pace.parallel_launches)) as pool:
            for answer in as_completed([pool.submit(self._launch, node) for node in nodes]):
                try:
                    self._record_answer(answer.result())
                except StoreError as error:
                    failed = error  # the others' answers are worth writing down all the same
        if failed is not None:
            raise failed

    def _launch(self, node: str) -> _Answer | None:
        """On a thread of its own. None: it is not to be launched any more, or has been."""
        intent = NodeIntent.from_bytes(self._store.get(layout.intent(node)).data)
        if not _launchable(intent):
            return None
        asked_at = self._clock.now()
        try:
            said: Launched | ProviderError = self._provider.launch(intent, self._store.uri)
        except ProviderError as error:
            said = error
        return _Answer(intent=intent, asked_at=asked_at, said=said)

    def _record_answer(self, answer: _Answer | None) -> None:
        if answer is None:
            return
        node, now = answer.intent.node, self._clock.now()
        match answer.said:
            case Launched(instance_id=instance_id, offer=offer, at=at):
                self._observer.launched(node, offer, now)
                self._record_launched(RecordLaunched(node=node, at=at, instance_id=instance_id, offer=offer))
            case NoCapacity() as error:
                self._observer.refused(answer.intent, error, answer.asked_at, now)
                self._journal_refusal(answer.intent, error)
            case error:
                self._observer.launch_failed(node, error, now)

    def _record_launched(self, action: RecordLaunched) -> None:
        def bought(intent: NodeIntent) -> NodeIntent:
            if intent.instance_id is not None and intent.launched_at is not None:
                return intent
            at = intent.launched_at if intent.launched_at is not None else action.at
            return intent.but(instance_id=action.instance_id, launched_at=at, offer=action.offer)

        if self._change(action.node, bought):
            offer = action.offer
            reason = f"{_named(offer)}, ${offer.price_per_hour:g} an hour"
            self._journal.write(
                EventKind.NODE_LAUNCHED,
                action.node,
                reason,
                offer=offer.model_dump(mode="json"),
                instance_id=action.instance_id,
            )

    def _journal_refusal(self, intent: NodeIntent, error: NoCapacity) -> None:
        told = [f"{one.instance_type} in {one.zone}, {one.market}: {one.message}" for one in error.refusals]
        more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        said = "; ".join(told[:_NAMED]) + more if told else str(error)
        self._journal.write(
            EventKind.LAUNCH_REFUSED,
            intent.node,
            f"attempt {intent.attempt}: {said}",
            attempt=intent.attempt,
            kind=type(error).__name__,
            refusals=[_plain(refusal) for refusal in error.refusals],
        )

    def _claim_stray(self, action: TerminateStray) -> str | None:
        intent = action.intent
        try:
            self._store.create(layout.intent(intent.node), intent.to_bytes())
        except ObjectExists:
            return None  # it has an intent by now: no stray, or another controller ends it
        self._journal.write(EventKind.NODE_ENDED, intent.node, f"released: {action.reason}")
        return intent.node

    def _record_gone(self, action: RecordGone) -> None:
        words = {"gone_at": action.at, "gone_reason": action.reason, "taken": action.taken}
        recorded = self._change(
            action.node, lambda intent: intent if intent.gone_at is not None else intent.but(**words)
        )
        if recorded and not action.agent_said_so:
            self._journal.write(EventKind.NODE_ENDED, action.node, action.reason, at=action.at, by="controller")

    def _give_verdict(self, action: GiveVerdict) -> None:
        verdict = Verdict(
            state=action.state,
            at=self._clock.now(),
            by=f"controller {whoami()}",
            reason=action.reason,
            traceback=action.traceback,
        )
        create_verdict(self._store, self._run, action.incarnation, verdict, self._clock)

    def _forget(self, node: str) -> bool:
        return self._clear("forget", lambda: self._provider.forget(node))

    def _close(self) -> bool:
        return self._clear(CLOSE, lambda: self._provider.close(self._run))

    def _clear(self, what: str, call: Callable[[], None]) -> bool:
        """Whether that is done, or will never be: what we may not remove must not keep us here for ever."""
        if not self._observer.may_call(what, self._clock.now()):
            return False
        try:
            call()
        except (NotAuthorised, Misconfigured) as error:
            self._journal.write(EventKind.DECISION, self._run, f"not everything could be cleared up: {error}")
        except ProviderError as error:
            self._observer.call_failed(what, error, self._clock.now())
            return False
        self._observer.call_succeeded(what)
        return True

    def _change(self, node: str, change: Callable[[NodeIntent], NodeIntent]) -> bool:
        """Rewrite a node's intent as it is now; False if there was nothing to change."""

        def rewrite(data: bytes | None) -> bytes:
            if data is None:
                raise ObjectNotFound(f"the intent of {node} is gone")
            return change(NodeIntent.from_bytes(data)).to_bytes()

        before, after = change_object(self._store, layout.intent(node), rewrite)
        return before != after


def whoami() -> str:
    """host:pid of this controller."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _launchable(intent: NodeIntent) -> bool:
    """Still wanted, and not launched as far as anybody has written down."""
    return intent.terminate is None and intent.gone_at is None and intent.launched_at is None


def _named(offer: Offer) -> str:
    return f"{offer.instance_type} in {offer.zone}, {offer.market.value}"


def _plain(refusal: Refusal) -> dict[str, str]:
    return {
        "instance_type": refusal.instance_type,
        "zone": refusal.zone,
        "market": refusal.market,
        "kind": refusal.kind.__name__,
        "message": refusal.message,
    }
