"""What a chaos run left to judge it by."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from chaos.schedule import Fault, Trouble
from starling.infra.records import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """A fault that has struck. Times are epoch seconds."""

    number: int
    """In the schedule, from 1."""
    fault: Fault
    at: float
    until: float
    """The end of a notice, a freeze or a window; else `at`."""
    step: int
    """That training had completed."""
    hit: tuple[str, ...] = ()
    """Nodes."""
    everybody: bool = False
    """Whether no node that trained was spared."""
    note: str = ""
    """What was not as the schedule wanted it."""


@dataclass(kw_only=True, slots=True)
class Trace:
    """Steps completed by the nodes that live, over time."""

    times: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def saw(self, at: float, step: int) -> None:
        if not self.steps or step != self.steps[-1]:
            self.times.append(at)
            self.steps.append(step)

    def moved_at(self) -> float:
        """When the last step was seen to be completed; 0 if none was."""
        return self.times[-1] if self.times else 0.0

    def between(self, start: float, end: float) -> int:
        """Steps made from `start` to `end`."""
        return max(0, self._at(end) - self._at(start))

    def steps_before(self, end: float, steps: int) -> float:
        """When training was so many steps short of where it was at `end`; `end` itself if nothing is known."""
        reached = bisect_right(self.steps, max(0, self._at(end) - steps))
        return min(end, self.times[reached - 1]) if reached else end

    def highest(self, start: float, end: float) -> int:
        """The newest step that was completed at any time from `start` to `end`."""
        first, last = bisect_right(self.times, start), bisect_right(self.times, end)
        return max(self.steps[max(0, first - 1) : last], default=0)

    def _at(self, time: float) -> int:
        before = bisect_right(self.times, time)
        return max(self.steps[:before], default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hashes:
    weights: str
    state: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that the checks look at."""

    state: str
    """Of the run, at its end."""
    hashes: Hashes | None
    undisturbed: Hashes
    events: tuple[Event, ...]
    """Oldest first."""
    played: tuple[Played, ...]
    trace: Trace
    complaints: tuple[str, ...] = ()
    """What went wrong while the driver played."""
    leftovers: tuple[str, ...] = ()
    """What remained of the run when it was over."""
    remarks: tuple[str, ...] = ()
    """What is worth knowing and no violation."""
    seconds: float = 0.0

    def windows(self) -> list[tuple[Trouble, float, float]]:
        """Store trouble: what, from when, until when."""
        return [(p.fault.trouble, p.at, p.until) for p in self.played if p.fault.trouble is not None]
