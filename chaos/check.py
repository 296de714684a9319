"""Whether every promise held: pure over the evidence."""

from __future__ import annotations

from chaos.bounds import excesses
from chaos.evidence import Evidence
from starling.infra.records import EventKind


def violations(evidence: Evidence, every_steps: int) -> list[str]:
    """Every promise that was broken, in words; empty if all held."""
    return [
        *_end(evidence),
        *_bits(evidence),
        *excesses(evidence, every_steps),
        *_books(evidence),
        *(f"the driver saw: {complaint}" for complaint in evidence.complaints),
        *(f"left behind: {left}" for left in evidence.leftovers),
    ]


def _end(evidence: Evidence) -> list[str]:
    if evidence.state == "done":
        return []
    last = next((e.reason for e in reversed(evidence.events) if e.kind is EventKind.VERDICT), "no verdict")
    return [f"the run ended {evidence.state}, not done: {last}"]


def _bits(evidence: Evidence) -> list[str]:
    ours, theirs = evidence.hashes, evidence.undisturbed
    if ours is None:
        return ["the run has no hashes"] if evidence.state == "done" else []
    found = []
    if ours.weights != theirs.weights:
        found.append(f"weights_sha256 is {ours.weights[:16]}, of an undisturbed run {theirs.weights[:16]}")
    if ours.state != theirs.state:
        found.append(f"state_sha256 (with optimizer) is {ours.state[:16]}, of an undisturbed run {theirs.state[:16]}")
    return found


def _books(evidence: Evidence) -> list[str]:
    """A node is wanted once: twice would be two machines for one (slot, generation)."""
    wanted = [event.subject for event in evidence.events if event.kind is EventKind.NODE_WANTED]
    twice = sorted({node for node in wanted if wanted.count(node) > 1})
    return [f"wanted more than once: {', '.join(twice)}"] if twice else []
