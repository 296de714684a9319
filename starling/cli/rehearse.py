"""`rehearse`: the whole run on AWS inside an emulated region on this computer, then once more undisturbed, and whether
both came to the same."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starling.cli.live import event_line
from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, money, note, say, span, table
from starling.infra.errors import StarlingError, UsageError
from starling.infra.processes import HOME
from starling.infra.region.process import RegionProcess
from starling.infra.region.script import read_script
from starling.infra.region.trace import read_trace
from starling.orchestrator.ledger import ledger
from starling.orchestrator.loading import load_spec
from starling.orchestrator.rehearsal import (
    Outcome,
    has_trained,
    in_region,
    interruptions_by_kind,
    lines,
    made_smaller,
    on_demand_nodes,
    out_of_reach,
    undisturbed,
)
from starling.orchestrator.spec import Spec

REGION_RUN = "rehearsal"
LOCAL_RUN = "undisturbed"
LOOK_SECONDS = 1.0
DEFAULT_SCRIPT = Path(__file__).parents[1] / "infra" / "region" / "rehearsal.yaml"
_NOT_OURS = ("AWS_", "STARLING_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What was asked for."""

    spec_file: Path
    overrides: list[str]
    script: Path
    traces: list[str]
    scale: float
    seed: int


def rehearse_verb(wish: Wish, *, keep: bool, as_json: bool) -> int:
    """The exit code: 0 only if every promise was kept."""
    _need_extra()
    wish, spec = _with_what_the_spec_changes(wish)
    _check(spec, wish.spec_file)
    read_script(wish.script)
    for trace in wish.traces:
        read_trace(trace)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: sys.exit(128 + got))  # clean up below, as on Ctrl-C
    began = time.monotonic()
    with _folder(keep) as folder:
        outcome = _Rehearsal(wish, spec, folder, began).play()
    seconds = time.monotonic() - began
    if as_json:
        emit(_told(outcome, wish, seconds))
    else:
        say(outcome_text(outcome, seconds))
    return 0 if all(outcome.promises.values()) else 1


def _with_what_the_spec_changes(wish: Wish) -> tuple[Wish, Spec]:
    """And the spec that comes of it. What was asked for besides counts for more."""
    changes = made_smaller(load_spec(wish.spec_file, [*wish.overrides, "provider.name=aws"]))
    changed = dataclasses.replace(wish, overrides=[*changes, *wish.overrides])
    try:
        return changed, load_spec(wish.spec_file, [*changed.overrides, "provider.name=aws"])
    except UsageError as error:
        raise UsageError(f"{wish.spec_file}: rehearsal: these values do not fit:\n{error}") from error


def _check(spec: Spec, spec_file: Path) -> None:
    """Raise UsageError for what no rehearsal can play."""
    if spec.needs:
        raise UsageError(
            f"{spec_file}: needs: a rehearsal plays one run; rehearse the specs that it needs, one after the other"
        )
    if problem := out_of_reach(spec):
        raise UsageError(
            f"{spec_file}: data: {problem}; name a folder of images, digits or rendered-fundus in data.source, or for "
            "rehearsals only: rehearsal: {data.source: rendered-fundus}"
        )


class _Rehearsal:
    """One rehearsal, step by step."""

    def __init__(self, wish: Wish, spec: Spec, folder: Path, began: float) -> None:
        self._wish = wish
        self._spec = spec
        self._folder = folder
        self._began = began
        self._home = folder / "home"
        for needed in (self._home, folder / "t"):
            needed.mkdir()

    def play(self) -> Outcome:
        wish = self._wish
        options = ["--script", str(wish.script), "--scale", str(wish.scale), "--seed", str(wish.seed)]
        options += [word for trace in wish.traces for word in ("--trace", trace)]
        options += ["--region", self._region]
        self._say(f"opening an emulated {self._region}: {wish.scale:g} s pass there in one second")
        with RegionProcess(self._folder, home=self._home, options=options, said=self._said) as region:
            outcome = self._in_region(region)
            # Still inside: the region is also who leaves nothing of ours if we are killed.
            if self._spec.training is None or not self._spec.training.exact:
                return outcome
            return dataclasses.replace(outcome, undisturbed=self._undisturbed())

    def _undisturbed(self) -> dict[str, Any]:
        wish = self._wish
        self._say("the same on one node of this computer, undisturbed")
        words = ["run", str(wish.spec_file), "--name", LOCAL_RUN, "--store", str(self._folder / "store"), "--json"]
        alone: dict[str, Any] = json.loads(
            self._type(*words, *_as_options([*wish.overrides, *undisturbed(self._spec)]), environment={})
        )
        return alone

    @property
    def _region(self) -> str:
        return str(getattr(self._spec.provider, "region", "us-east-1"))

    def _in_region(self, region: RegionProcess) -> Outcome:
        setup = json.loads(
            self._type("aws", "setup", "--region", self._region, "--json", environment=region.environment)
        )
        self._say(f"`starling aws setup` made the stack; the store is {setup['store']}")
        with _in_environment(region.environment):
            rehearsed = self._run(region, str(setup["store"]))
            view = OpenRun(store_for(setup["store"]), REGION_RUN).view()
        found = json.loads(self._type("gc", "--json", environment=region.environment))
        self._type("aws", "teardown", "--yes", "--delete-bucket", environment=region.environment)
        return Outcome(
            rehearsed=rehearsed,
            undisturbed=None,
            ledger=lines(ledger(view.facts.nodes, view.now), self._wish.scale),
            interruptions=interruptions_by_kind(view.events),
            left=found["resources"],
        )

    def _run(self, region: RegionProcess, store_uri: str) -> dict[str, Any]:
        """`starling run`, while its events are told; the script's clock starts once it trains."""
        wish = self._wish
        words = ["run", str(wish.spec_file), "--name", REGION_RUN, "--store", store_uri, "--json"]
        words += _as_options([*wish.overrides, *in_region(self._spec, wish.scale)])
        with self._started(*words, environment=region.environment) as process:
            told, begun = 0, False
            while process.poll() is None:
                time.sleep(LOOK_SECONDS)
                events = _events(store_uri)
                for event in events[told:]:
                    self._say(event_line(event).partition("  ")[2])
                told = len(events)
                if not begun and has_trained(events):
                    self._say("training: the script's clock starts")
                    region.begin()
                    begun = True
            output = self._output_of(process, words)
        result: dict[str, Any] = json.loads(output)
        return result

    def _type(self, *words: str, environment: dict[str, str]) -> str:
        """A command as a user types it; its stdout. Raises StarlingError if it fails."""
        with self._started(*words, environment=environment) as process:
            process.wait()
            return self._output_of(process, words)

    @contextmanager
    def _started(self, *words: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """Its output goes to files: nobody reads along."""
        with self._file(words, "out").open("wb") as out, self._file(words, "err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "starling.cli", *words],
                env=self._environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _output_of(self, process: subprocess.Popen[bytes], words: Sequence[str]) -> str:
        """Of one that has ended. A run that failed has a result, too."""
        output = self._file(words, "out").read_text()
        if process.returncode != 0 and not (words[0] == "run" and output.lstrip().startswith("{")):
            said = self._file(words, "err").read_text().strip()
            raise StarlingError(f"`starling {words[0]}` ended with {process.returncode}:\n{said}")
        return output

    def _file(self, words: Sequence[str], kind: str) -> Path:
        """Where a command's output goes: named for the run that it makes, else for its words."""
        name = words[words.index("--name") + 1] if "--name" in words else "-".join(words[:2])
        return self._folder / f"{name}.{kind}"

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        """The user's, less what would lead elsewhere."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
        return {**kept, HOME: str(self._home), "TMPDIR": str(self._folder / "t"), **more}

    def _said(self, text: str) -> None:
        self._say(f"region: {text}")

    def _say(self, text: str) -> None:
        minutes, seconds = divmod(int((time.monotonic() - self._began) * self._wish.scale), 60)
        note(f"[{minutes:3d}:{seconds:02d}] {text}")


def outcome_text(outcome: Outcome, seconds: float) -> str:
    """For people."""
    rows = [["node", "type", "zone", "market", "hours", "cost", "on demand"]]
    rows += [
        [
            line.node,
            line.instance_type,
            line.zone,
            line.market,
            f"{line.hours:.3f}",
            money(line.cost),
            money(line.on_demand_cost),
        ]
        for line in outcome.ledger
    ]
    full = outcome.on_demand_cost
    saving = f", {(full - outcome.cost) / full:.0%} less than on demand ({money(full)})" if full else ""
    happened = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.interruptions.items())) or "none"
    recovered = [
        f"  {recovery['kind']} {recovery['node'] or ''}: next step after {span(recovery['seconds'])}"
        for recovery in outcome.rehearsed.get("recoveries", [])
    ]
    promises = [f"{'held  ' if kept else 'BROKEN'}  {what}" for what, kept in outcome.promises.items()]
    return "\n".join(
        [
            table(rows),
            f"cost: {money(outcome.cost)}{saving}; in region time, $0 for you",
            f"interruptions: {happened}; nodes on demand: {on_demand_nodes(outcome.ledger)}",
            *recovered,
            f"weights_sha256: {outcome.rehearsed.get('weights_sha256')}",
            *promises,
            f"rehearsed in {span(seconds)}",
        ]
    )


def _told(outcome: Outcome, wish: Wish, seconds: float) -> dict[str, Any]:
    return {
        "promises": outcome.promises,
        "rehearsed": dict(outcome.rehearsed),
        "undisturbed": None if outcome.undisturbed is None else dict(outcome.undisturbed),
        "interruptions": dict(outcome.interruptions),
        "ledger": [dataclasses.asdict(line) for line in outcome.ledger],
        "cost": outcome.cost,
        "on_demand_cost": outcome.on_demand_cost,
        "left": list(outcome.left),
        "scale": wish.scale,
        "seconds": round(seconds, 1),
    }


def _events(store_uri: str) -> list[Any]:
    """None yet while the run is being made."""
    try:
        return OpenRun(store_for(store_uri), REGION_RUN).events()
    except UsageError:
        return []


def _as_options(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("-o", override)]


def _need_extra() -> None:
    from importlib.util import find_spec

    if find_spec("moto") is None or find_spec("flask") is None:
        raise UsageError(
            "rehearsals need the emulated region, which is not installed: pip install 'starling[rehearse]'"
        )


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    """A new one with a short path: sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="starling-"))
    try:
        yield folder
    finally:
        if keep:
            note(f"everything it wrote is in {folder}")
        else:
            shutil.rmtree(folder)


@contextmanager
def _in_environment(values: dict[str, str]) -> Iterator[None]:
    """Our own clients look into this process' environment."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_NOT_OURS)}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)
