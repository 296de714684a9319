"""An incarnation's verdict: created exactly once, by whoever is first to know."""

from __future__ import annotations

from starling.infra import layout
from starling.infra.clock import Clock
from starling.infra.errors import ObjectExists
from starling.infra.journal import Journal
from starling.infra.records import EventKind, Verdict
from starling.infra.store import Store


def create_verdict(store: Store, run: str, incarnation: int, verdict: Verdict, clock: Clock | None = None) -> bool:
    """Create it, and say so in the journal, unless somebody was first; return whether it is ours."""
    try:
        store.create(layout.verdict(run, incarnation), verdict.to_bytes())
    except ObjectExists:
        return False
    Journal(store, run, clock).write(EventKind.VERDICT, run, verdict.reason, state=verdict.state, step=verdict.step)
    return True
