"""What chaos says at its end, for people."""

from __future__ import annotations

from rich.table import Table

from chaos.bounds import bound
from chaos.evidence import Evidence, Played
from chaos.scene import EVERY_STEPS
from chaos.session import Finding
from starling.infra.records import EventKind
from starling.orchestrator.interruptions import Recovery, recoveries, steps_redone


def table_of(finding: Finding) -> Table:
    """Every fault with what it may have cost, and how long recovery took where it was interrupted."""
    evidence = finding.evidence
    table = Table("", "step", "fault", "hit", "steps allowed", "next step after", title=f"seed {finding.schedule.seed}")
    told = recoveries(evidence.events)
    for played in evidence.played:
        seconds = _recovery(played, told)
        table.add_row(
            str(played.number),
            str(played.step),
            f"{played.fault.what} {played.note}".rstrip(),
            ", ".join(node.partition(".")[2] for node in played.hit),
            str(bound(played, evidence, EVERY_STEPS)),
            f"{seconds:.1f} s" if seconds is not None else "",
        )
    return table


def summary(evidence: Evidence) -> str:
    """One line."""
    rounds = sum(event.kind is EventKind.ROUND for event in evidence.events)
    allowed = sum(bound(played, evidence, EVERY_STEPS) for played in evidence.played)
    taken = sorted(r.seconds for r in recoveries(evidence.events) if r.seconds is not None)
    median = f", median recovery {taken[len(taken) // 2]:.1f} s" if taken else ""
    return (
        f"{len(evidence.played)} faults, {rounds} rounds, {len(taken)} recoveries{median}, "
        f"{steps_redone(evidence.events)} steps redone of {allowed} allowed, {evidence.seconds:.0f} s"
    )


def _recovery(played: Played, told: list[Recovery]) -> float | None:
    ours = (r for r in told if r.cause.node in played.hit and abs(r.cause.at - played.at) < 1.0)
    return next((r.seconds for r in ours if r.seconds is not None), None)
