"""Plays a schedule on a real run: waits for each fault's moment, strikes, and sees the run to its end."""

from __future__ import annotations

import time
from collections.abc import Callable

from chaos.evidence import Played, Trace
from chaos.lookout import Lookout, Sight
from chaos.scene import EVERY_STEPS, RUN, Scene
from chaos.schedule import Fault, Kind, Moment, Schedule
from chaos.strike import Striker
from starling.infra.errors import ObjectNotFound, StarlingError
from starling.infra.providers.local.provider import LocalProvider

LOOK_SECONDS = 0.05
STEP_SECONDS = 0.12
"""What a step should take with three nodes, so that faults hit in the middle of it."""
MOMENT_PATIENCE = 12.0
"""A moment that does not come is not waited for for ever: then the fault strikes where the run is."""
STEPS_PATIENCE = 60.0
END_PATIENCE = 180.0
PLAYED_AT_LEAST = 0.8
"""The share of a schedule that must have been played to prove anything."""


class Driver:
    """One run of one schedule."""

    def __init__(self, scene: Scene, schedule: Schedule, say: Callable[[str], None]) -> None:
        self._scene = scene
        self._schedule = schedule
        self._say = say
        self._lookout = Lookout(scene)
        self._striker = Striker(scene, self._lookout)
        self._began = time.time()
        self.trace = Trace()
        self.played: list[Played] = []
        self.complaints: list[str] = []
        self.remarks: list[str] = []

    def run(self) -> None:
        """Create the run, play, wait for the end. What goes wrong meanwhile is in `complaints`."""
        self._scene.brake(STEP_SECONDS / 3)
        started = self._scene.type("run", str(self._scene.write_spec()), "--name", RUN, "--detach")
        if started.returncode != 0:
            raise StarlingError(f"the run could not be started:\n{started.stdout}")
        try:
            self._see_it_begin()
            self._play()
            self._see_it_end()
        finally:
            self._striker.make_good()
            for chore in self._striker.chores:
                chore.end()
            self._end_processes()

    def _see_it_begin(self) -> None:
        give_up_at = time.time() + END_PATIENCE
        while self._look().step < 0 and time.time() < give_up_at and not self._is_over():
            continue

    def _play(self) -> None:
        struck_at_step = 0
        for number, fault in enumerate(self._schedule.faults, 1):
            note = self._await(fault, struck_at_step)
            if note is None:
                self._note_unplayed(number - 1)
                return
            sight = self._look()
            played = self._striker.strike(number, fault, sight, note)
            self.played.append(played)
            struck_at_step = max(struck_at_step, sight.step)
            self._hold_back(len(self._schedule.faults) - number)
            what = f"{fault.what} ({', '.join(played.hit)})" if played.hit else fault.what
            self._say(f"{played.at - self._began:6.1f} s  step {sight.step:4}  {number:3}. {what} {note}".rstrip())

    def _note_unplayed(self, played: int) -> None:
        planned = len(self._schedule.faults)
        what = f"the run was over when {played} of {planned} faults had struck"
        self._say(what)
        (self.remarks if played >= PLAYED_AT_LEAST * planned else self.complaints).append(what)

    def _await(self, fault: Fault, since: int) -> str | None:
        """Wait for the fault's moment: what was not as wanted, or None if the run is over."""
        note = ""
        give_up_at = time.time() + STEPS_PATIENCE
        while self._look().step < since + fault.after_steps:
            if self._is_over():
                return None
            if time.time() > give_up_at:
                note = f"(made no {fault.after_steps} steps within {STEPS_PATIENCE:.0f} s)"
                break
        give_up_at = time.time() + MOMENT_PATIENCE
        while not self._is_moment(fault.moment):
            if self._is_over():
                return None
            if time.time() > give_up_at:
                note = f"(not {fault.moment.value})"
                break
        until = time.time() + fault.delay
        while time.time() < until:
            self._look()
        return None if self._is_over() else note

    def _is_moment(self, moment: Moment) -> bool:
        sight = self._look()
        if moment is Moment.UPLOADING:
            return sight.step % EVERY_STEPS == 0 or self._lookout.uploading()
        return sight.fits(moment, self._lookout.wanted())

    def _look(self) -> Sight:
        """One look, a pause, and whatever has become due."""
        time.sleep(LOOK_SECONDS)
        self._striker.tick()
        self._mind_chores()
        sight = self._lookout.look()
        self.trace.saw(time.time(), sight.step)
        return sight

    def _mind_chores(self) -> None:
        for chore in list(self._striker.chores):
            if chore.done() or chore.complaint:
                self._striker.chores.remove(chore)
                if chore.complaint:
                    self.complaints.append(chore.complaint)

    def _is_over(self) -> bool:
        """Whether the run has ended, and nobody is about to let it go on."""
        verdict = self._lookout.verdict()
        resumes = any(chore.stops for chore in self._striker.chores)
        return verdict is not None and not (resumes and verdict.state.value == "stopped")

    def _hold_back(self, faults_left: int) -> None:
        """Slow training down if it would be done before the last fault has struck."""
        steps_left = self._scene.total_steps - max(self.trace.steps, default=0)
        slow = steps_left < 25 * faults_left
        self._scene.brake(STEP_SECONDS * (4 if slow else 1) / 3)

    def _see_it_end(self) -> None:
        # The last faults must still find it at work: notices take effect, windows close, stops are resumed.
        last = max((played.until for played in self.played), default=0.0)
        while not self._is_over() and (time.time() < last or self._striker.busy() or self._striker.chores):
            self._look()
        self._scene.brake(0.0)
        began = time.time()
        while not (self._is_over() and self._is_quiet()):
            self._look()
            if time.time() > max(began, self.trace.moved_at()) + END_PATIENCE:
                self.complaints.append(
                    f"nothing moved for {END_PATIENCE:.0f} s, and the run is not over and cleared up"
                )
                return
            self._mind_controller()

    def _is_quiet(self) -> bool:
        return self._is_cleared() and not (self._striker.busy() or self._striker.chores or self._lookout.processes())

    def _is_cleared(self) -> bool:
        """Whether the run is over and a controller has removed what its nodes left."""
        return self._lookout.verdict() is not None and not any((self._scene.home / "nodes").glob("*"))

    def _mind_controller(self) -> None:
        """A run without a controller needs one for its end; that it has none must be our doing."""
        if self._striker.chores or self._lookout.controllers() or self._is_cleared():
            return
        if not any(played.fault.kind in (Kind.KILL_CONTROLLER, Kind.STOP) for played in self.played):
            self.complaints.append("the controller ended by itself")
        self._striker.resume()

    def _end_processes(self) -> None:
        """Only if something went wrong is anything left: controllers first, since they replace lost nodes."""
        for pid, node in self._lookout.processes().items():
            if node is None:
                self._striker.kill(pid)
        provider = LocalProvider(home=self._scene.home)
        provider.terminate([machine.node for machine in provider.list()])


def result_of(scene: Scene) -> tuple[str, dict[str, str]]:
    """State and hashes of a run that is over."""
    try:
        verdict = Lookout(scene).verdict()
    except ObjectNotFound:
        return "unknown", {}
    if verdict is None:
        return "unfinished", {}
    return verdict.state.value, dict(verdict.result or {})
