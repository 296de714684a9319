"""Trains real handwritten digits on three nodes while nodes are taken away, then once more on one node undisturbed.

Everything is done as a user would, with `starling` commands; this script types them at the right moments and checks
what came out. Exit code 1 if any promise does not hold.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SPEC = "configs/digits.yaml"
# A wider network than the config's, so that steps take long enough to be interrupted.
OVERRIDES = ("training.epochs=60", "model.options.channels=[64,128]")
NOTICE_SECONDS = 20
LEAST_ACCURACY = 0.95
PATIENCE = 240.0

console = Console(highlight=False, width=max(100, Console().width))


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # clean up below, as on Ctrl-C
    with tempfile.TemporaryDirectory(prefix="starling-demo-") as home:
        os.environ["STARLING_HOME"] = home
        os.environ.pop("STARLING_STORE", None)
        try:
            disturbed = run_and_interrupt()
            title("The same spec on one node, undisturbed")
            starling("run", SPEC, *_options("nodes.max=1"), "--name", "alone")
            return report(disturbed, starling_json("result", "alone"))
        finally:
            _leave_nothing(Path(home))


def run_and_interrupt() -> dict[str, Any]:
    """Train on three nodes; announce one, kill another; return the result."""
    title("Three nodes. One will get a notice, one will be killed")
    starling("plan", SPEC, *_options())
    words = ("run", SPEC, *_options(), "--name", "flock")
    say("starling", *words)
    with subprocess.Popen(_command(*words), cwd=ROOT) as training, _stopped_watching(training):
        wait(training, "three nodes to train", lambda s: s["world_size"] == 3 and 0 < s["step"] % 23 < 20)
        starling("interrupt", "flock", "--node", "flock.2.0", "--notice", str(NOTICE_SECONDS))
        wait(training, "the replacement to join", lambda s: s["world_size"] == 3 and "flock.2.1" in training_nodes(s))
        time.sleep(2)
        starling("interrupt", "flock", "--node", "rank0", "--hard")
        wait(training, "the last replacement to join", lambda s: s["world_size"] == 3 and len(replaced(s)) == 2)
        if training.wait(PATIENCE) != 0:
            raise SystemExit("the run did not end well; see above")
    return starling_json("result", "flock")


def report(disturbed: dict[str, Any], alone: dict[str, Any]) -> int:
    """Print what happened and whether every promise held."""
    title("What happened")
    events = starling_json("events", "flock")["events"]
    console.print(events_table(events))
    console.print(recoveries_table(disturbed))
    console.print(f"state SHA-256, three nodes, interrupted  {disturbed['state_sha256']}", soft_wrap=True)
    console.print(f"state SHA-256, one node, undisturbed     {alone['state_sha256']}", soft_wrap=True)
    accuracy = disturbed["metrics"]["accuracy"]
    redone = redone_after_notice(events)
    kinds = [recovery["kind"] for recovery in disturbed["recoveries"]]
    promises = {
        "one node left on notice, one was killed, and training went on": sorted(kinds) == ["hard", "notice"],
        "both replacements joined": newest_round(events)["world_size"] == 3,
        f"steps redone after the notice: {redone}": redone == 0,
        "weights are equal to the last bit": disturbed["weights_sha256"] == alone["weights_sha256"],
        "weights, optimizer, schedule and step are equal to the last bit": disturbed["state_sha256"]
        == alone["state_sha256"],
        f"test accuracy {accuracy:.4f} is at least {LEAST_ACCURACY}": accuracy >= LEAST_ACCURACY,
    }
    for promise, kept in promises.items():
        console.print(f"[{'green' if kept else 'red'}]{'held  ' if kept else 'BROKEN'}[/]  {promise}")
    return 0 if all(promises.values()) else 1


def events_table(events: list[dict[str, Any]]) -> Table:
    table = Table("seconds", "event", "subject", "what and why", title="events (checkpoints left out)")
    began = events[0]["at"]
    for event in events:
        if event["kind"] not in ("checkpoint", "decision", "controller-started"):
            table.add_row(f"{event['at'] - began:7.2f}", event["kind"], event["subject"], event["reason"])
    return table


def recoveries_table(result: dict[str, Any]) -> Table:
    table = Table("interruption", "node", "seconds to the next step", title="recoveries")
    for recovery in result["recoveries"]:
        seconds = "-" if recovery["seconds"] is None else f"{recovery['seconds']:.2f}"
        table.add_row(recovery["kind"], recovery["node"], seconds)
    return table


def redone_after_notice(events: list[dict[str, Any]]) -> int | None:
    """Steps that the round after the notice did again; None if there was no such round."""
    noticed = [event["at"] for event in events if event["kind"] == "node-notice"]
    after = [event["data"]["redone"] for event in events if event["kind"] == "round" and event["at"] > max(noticed)]
    return int(after[0]) if after else None


def newest_round(events: list[dict[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = [event["data"] for event in events if event["kind"] == "round"][-1]
    return data


def training_nodes(status: dict[str, Any]) -> set[str]:
    return {node["id"] for node in status["nodes"] if node["state"] == "training"}


def replaced(status: dict[str, Any]) -> set[str]:
    """Training nodes that took the place of an interrupted one."""
    return {node for node in training_nodes(status) if not node.endswith(".0")}


def wait(training: subprocess.Popen[bytes], what: str, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Look at the run's status until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and training.poll() is None:
        answer = subprocess.run(_command("status", "flock", "--json"), capture_output=True, cwd=ROOT, check=False)
        if answer.returncode == 0 and condition(json.loads(answer.stdout)):
            return
        time.sleep(0.2)
    raise SystemExit(f"waited in vain for {what}")


def starling(*words: str) -> None:
    """Type a command."""
    say("starling", *words)
    code = subprocess.run(_command(*words), cwd=ROOT, check=False).returncode
    if code != 0:
        raise SystemExit(f"starling {words[0]} ended with exit code {code}")


def starling_json(*words: str) -> dict[str, Any]:
    answer = subprocess.run(_command(*words, "--json"), capture_output=True, cwd=ROOT, check=True)
    parsed: dict[str, Any] = json.loads(answer.stdout)
    return parsed


def title(text: str) -> None:
    console.rule(f"[bold]{text}")


def say(*words: str) -> None:
    console.print(f"[bold]$ {' '.join(words)}", soft_wrap=True)


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "starling.cli", *words]


def _options(*more: str) -> list[str]:
    return [word for override in (*OVERRIDES, *more) for word in ("-o", override)]


@contextmanager
def _stopped_watching(training: subprocess.Popen[bytes]) -> Iterator[None]:
    """Do not wait for the end of a run that something else went wrong with."""
    try:
        yield
    finally:
        training.terminate()


def _leave_nothing(home: Path) -> None:
    """End what a failed or interrupted demo left running: controllers first, since they replace lost nodes."""
    from starling.infra.providers.local.provider import LocalProvider
    from starling.orchestrator.launching import controller_pid

    for run in ("flock", "alone"):
        if pid := controller_pid(run, str(home / "store")):
            os.kill(pid, signal.SIGKILL)
    provider = LocalProvider(home=home)
    provider.terminate([machine.node for machine in provider.list()])


if __name__ == "__main__":
    sys.exit(main())
