"""What a user would do about it, typed while the next faults already strike: resume, stop, resume again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from chaos.lookout import Lookout
from chaos.scene import RUN, Scene
from starling.infra.records import RunState

RETRY_SECONDS = 1.0
"""A user types a command again if the store did not answer it."""
GIVE_UP_SECONDS = 150.0


class Command:
    """One command, typed again until it works or is refused as wrong."""

    def __init__(self, scene: Scene, *words: str, fine: tuple[int, ...] = (0,)) -> None:
        self._scene = scene
        self._words = words
        self._fine = fine
        self._process: subprocess.Popen[str] | None = None
        self._again_at = 0.0
        self._give_up_at = time.time() + GIVE_UP_SECONDS
        self.output = ""
        self.exit_code: int | None = None
        self.complaint: str | None = None

    def done(self) -> bool:
        """Look after it; True once it has ended for good."""
        if self._process is None:
            if time.time() >= self._again_at:
                self._process = self._scene.start(*self._words)
            return False
        if self._process.poll() is None:
            if time.time() < self._give_up_at:
                return False
            self._process.kill()
        self.output, _ = self._process.communicate()
        self.exit_code = self._process.returncode
        self._process = None
        self._again_at = time.time() + RETRY_SECONDS
        if "Traceback" in self.output:
            self.complaint = f"`starling {' '.join(self._words)}` ended with a traceback:\n{self.output}"
            return True
        if self.exit_code in (*self._fine, 2):
            return True
        if time.time() > self._give_up_at:
            self.complaint = f"`starling {' '.join(self._words)}` failed for {GIVE_UP_SECONDS:.0f} s:\n{self.output}"
            return True
        return False

    def end(self) -> None:
        """Leave no process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


class Resume:
    """After some seconds, somebody gives the run a controller again."""

    def __init__(self, scene: Scene, seconds: float) -> None:
        self._at = time.time() + seconds
        self._command = Command(scene, "resume", RUN, "--detach", fine=(0,))
        self.stops = False

    def done(self) -> bool:
        return time.time() >= self._at and self._command.done()

    @property
    def complaint(self) -> str | None:
        return self._command.complaint

    def end(self) -> None:
        self._command.end()


class StopAndResume:
    """Stops the run; once it has stopped, lets it go on with another number of nodes."""

    def __init__(self, scene: Scene, lookout: Lookout, nodes_max: int) -> None:
        self._scene = scene
        self._lookout = lookout
        self._stop = Command(scene, "stop", RUN, fine=(0,))
        self._resume = Command(scene, "resume", RUN, "--detach", "-o", f"nodes.max={nodes_max}")
        self._phase: Callable[[], bool] = self._stopping
        self.stops = True

    def done(self) -> bool:
        return self._phase()

    @property
    def complaint(self) -> str | None:
        return self._stop.complaint or self._resume.complaint

    def end(self) -> None:
        self._stop.end()
        self._resume.end()

    def _stopping(self) -> bool:
        if self._stop.done():
            verdict = self._lookout.verdict()
            if verdict is not None and verdict.state is not RunState.STOPPED:
                return True  # it was done before it could be stopped
            self._phase = self._resuming
        return False

    def _resuming(self) -> bool:
        # Refused (exit code 2) if somebody else has resumed the run meanwhile: it goes on, with the values it had.
        return self._resume.done()


Chore = Resume | StopAndResume
