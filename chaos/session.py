"""From schedules to findings: the undisturbed run once, then every schedule on a run of its own."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.check import violations
from chaos.driver import Driver, result_of
from chaos.evidence import Evidence, Hashes
from chaos.leftovers import leftovers, remarks
from chaos.scene import EVERY_STEPS, RUN, STEPS_PER_EPOCH, Scene, folder_scene, s3_scene
from chaos.schedule import Schedule
from starling.infra.errors import StarlingError
from starling.infra.journal import read_events

STEPS_PER_FAULT = 45
LEAST_STEPS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One schedule, played and judged."""

    schedule: Schedule
    evidence: Evidence
    violations: tuple[str, ...]
    kept: Path | None
    """Where the record of a failure lies: the schedule as JSON, events, logs."""


class Session:
    """Plays schedules; undisturbed runs are made once for each length."""

    def __init__(self, say: Callable[[str], None], keep_in: Path) -> None:
        """`keep_in`: the folder that gets one folder for every failure."""
        self._say = say
        self._keep_in = keep_in
        self._undisturbed: dict[int, Hashes] = {}

    def play(self, schedule: Schedule) -> Finding:
        """Play, check, keep the record if a promise was broken."""
        epochs = epochs_for(schedule)
        undisturbed = self.undisturbed(epochs)
        with _scene(schedule.store, epochs) as scene:
            driver = Driver(scene, schedule, self._say)
            began = time.time()
            driver.run()
            state, result = result_of(scene)
            evidence = Evidence(
                state=state,
                hashes=_hashes(result),
                undisturbed=undisturbed,
                events=tuple(read_events(scene.store, RUN)),
                played=tuple(driver.played),
                trace=driver.trace,
                complaints=tuple(driver.complaints),
                leftovers=tuple(leftovers(scene)),
                remarks=(*driver.remarks, *remarks(scene.store)),
                seconds=time.time() - began,
            )
            broken = tuple(violations(evidence, EVERY_STEPS))
            kept = self._keep(scene, schedule, broken) if broken else None
        return Finding(schedule=schedule, evidence=evidence, violations=broken, kept=kept)

    def undisturbed(self, epochs: int) -> Hashes:
        """Hashes of the same spec on one node that nothing happens to."""
        if epochs not in self._undisturbed:
            self._say(f"the undisturbed run: {epochs * STEPS_PER_EPOCH} steps on one node")
            with folder_scene(epochs) as scene:
                done = scene.type("run", str(scene.write_spec()), "--name", RUN, "-o", "nodes.max=1")
                hashes = _hashes(result_of(scene)[1])
            if hashes is None:
                raise StarlingError(f"the undisturbed run did not end well:\n{done.stdout}")
            self._undisturbed[epochs] = hashes
        return self._undisturbed[epochs]

    def _keep(self, scene: Scene, schedule: Schedule, broken: tuple[str, ...]) -> Path:
        self._keep_in.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{schedule.store}-{schedule.seed}-", dir=self._keep_in))
        schedule.write(folder / "schedule.json")
        (folder / "violations.txt").write_text("\n".join(broken) + "\n")
        for name in ("events", "logs", "status"):
            (folder / f"{name}.txt").write_text(scene.type(name, RUN).stdout)
        shutil.copytree(scene.home / "controllers", folder / "controllers")
        return folder


def epochs_for(schedule: Schedule) -> int:
    """Long enough for all faults."""
    return -(-(LEAST_STEPS + STEPS_PER_FAULT * len(schedule.faults)) // STEPS_PER_EPOCH)


@contextmanager
def _scene(store: str, epochs: int) -> Iterator[Scene]:
    with s3_scene(epochs) if store == "s3" else folder_scene(epochs) as scene:
        yield scene


def _hashes(result: dict[str, str]) -> Hashes | None:
    if "state_sha256" not in result:
        return None
    return Hashes(weights=result["weights_sha256"], state=result["state_sha256"])
