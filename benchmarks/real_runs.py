"""Real runs on this machine, as a user would start them: undisturbed, on more nodes, and with nodes taken away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from starling.infra import layout
from starling.infra.providers.local.provider import LocalProvider
from starling.infra.store import open_store
from starling.orchestrator.launching import controller_pid

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 600.0
"""Seconds for whatever is waited for."""
NOTICE_SECONDS = 20


class RunFailed(Exception):
    """A run did not end as it should have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """A place of our own for runs, nodes and the store."""

    path: Path
    store: str = ""
    """URI of the runs' store; empty: a folder in here."""
    started: list[str] = field(default_factory=list)
    """Ids of all runs so far."""

    @property
    def store_uri(self) -> str:
        return self.store or str(self.path / "store")

    def write_spec(self, name: str, **sections: Any) -> Path:
        """JSON is YAML."""
        path = self.path / f"{name}.yaml"
        path.write_text(json.dumps({"name": name, "provider": "local", **sections}, indent=1))
        return path

    def run(self, spec: Path, name: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run a spec to its end; what `starling result --json` says. Raises RunFailed."""
        with self.running(spec, name, overrides) as training:
            pass
        return self._result(name, training)

    def run_interrupted(self, spec: Path, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """The same, while one node leaves on notice and, once that is replaced, the first one is killed.

        Raises RunFailed.
        """
        wanted = list(range(overrides["nodes.max"]))

        def full(status: dict[str, Any]) -> bool:
            return sorted(_ranks(status).values()) == wanted

        with self.running(spec, name, overrides) as training:
            self._wait(training, name, lambda status: full(status) and status["step"] > 0)
            self._starling("interrupt", name, "--node", f"{name}.1.0", "--notice", str(NOTICE_SECONDS))
            status = self._wait(training, name, lambda status: f"{name}.1.0" not in _ranks(status) and full(status))
            first = next(node for node, rank in _ranks(status).items() if rank == 0)
            self._starling("interrupt", name, "--node", first, "--hard")
        result = self._result(name, training)
        if (kinds := sorted(recovery["kind"] for recovery in result["recoveries"])) != ["hard", "notice"]:
            raise RunFailed(f"{name}: one node was to leave on notice and one to be killed, but there was {kinds}")
        return result

    @contextmanager
    def running(
        self, spec: Path, name: str, overrides: dict[str, Any] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """`starling run`, until it has ended. Raises RunFailed if that takes too long."""
        self.started.append(name)
        options = [word for item in (overrides or {}).items() for word in ("-o", "{}={}".format(*item))]
        command = self._command("run", str(spec), *options, "--name", name)
        with (
            self._log(name).open("wb") as log,
            subprocess.Popen(command, cwd=ROOT, env=self._environment(), stdout=log, stderr=log) as training,
        ):
            try:
                yield training
                training.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise RunFailed(f"{name} had not ended after {PATIENCE:.0f} s") from None
            finally:
                training.terminate()

    def steps(self, name: str) -> list[dict[str, Any]]:
        """The metrics of all steps of a run, in order."""
        store = open_store(self.store_uri)
        text = b"".join(store.get(found.key).data for found in store.list(layout.metrics(name)))
        lines = map(json.loads, text.splitlines())
        return [line for line in lines if "kind" not in line]

    def close(self) -> None:
        """End whatever runs here still: controllers first, since they replace lost nodes."""
        for run in self.started:
            if pid := controller_pid(run, self.store_uri):
                os.kill(pid, signal.SIGKILL)
        provider = LocalProvider(home=self.path)
        provider.terminate([machine.node for machine in provider.list()])

    def _log(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def _result(self, name: str, training: subprocess.Popen[bytes]) -> dict[str, Any]:
        if training.returncode != 0:
            last = self._log(name).read_text(errors="replace").strip().splitlines()[-1:]
            raise RunFailed(f"{name} ended with exit code {training.returncode}: {' '.join(last)}")
        return self._starling("result", name)

    def _wait(
        self, training: subprocess.Popen[bytes], name: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and training.poll() is None:
            answer = subprocess.run(
                self._command("status", name, "--json"),
                env=self._environment(),
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if answer.returncode == 0 and condition(status := json.loads(answer.stdout)):
                return cast(dict[str, Any], status)
            time.sleep(0.2)
        raise RunFailed(f"{name}: its nodes did not do what was waited for before it ended")

    def _starling(self, *words: str) -> dict[str, Any]:
        answer = subprocess.run(
            self._command(*words, "--json"),
            env=self._environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise RunFailed(f"starling {words[0]}: {answer.stderr.strip()}")
        parsed: dict[str, Any] = json.loads(answer.stdout)
        return parsed

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "starling.cli", *words]

    def _environment(self) -> dict[str, str]:
        own = {"STARLING_HOME": str(self.path), "STARLING_STORE": self.store_uri, "PYTHONPATH": str(ROOT)}
        return {**os.environ, **own}


@contextmanager
def home(folder: Path, store: str = "") -> Iterator[Home]:
    """A home in a new folder; nothing of it runs on after the block."""
    folder.mkdir()
    made = Home(path=folder, store=store)
    try:
        yield made
    finally:
        made.close()


def _ranks(status: dict[str, Any]) -> dict[str, int]:
    """The first rank of each node that trains."""
    return {node["id"]: node["rank"] for node in status["nodes"] if node["state"] == "training"}
