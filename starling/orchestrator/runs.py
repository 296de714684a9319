"""Creating, stopping and resuming runs: what is written, in which order."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from starling.infra import layout
from starling.infra.clock import Clock, SystemClock
from starling.infra.code import pack_code
from starling.infra.errors import ObjectExists, ObjectNotFound, UsageError
from starling.infra.journal import Journal
from starling.infra.records import EventKind, RunRecord, RunState, StopRequest
from starling.infra.store import Store
from starling.infra.store.change import change_object, first_word
from starling.orchestrator.changes import changed_spec, differences
from starling.orchestrator.facts import Facts
from starling.orchestrator.limits import limit_reached
from starling.orchestrator.needs import broken_need
from starling.orchestrator.provider_sections import AwsSection
from starling.orchestrator.reading import RunReader, read_verdict, unknown_run
from starling.orchestrator.spec import Spec


def create_run(
    store: Store, spec: Spec, *, name: str | None = None, code: Path | None = None, clock: Clock | None = None
) -> RunRecord:
    """Write down a new run; nothing is launched. Raises UsageError if the name is taken.

    1. The code folder, by content: harmless if we die now. 2. The spec, create-only. 3. run.json, create-only and
    last: from then on the run exists. 4. The event.
    """
    clock = clock or SystemClock()
    run = new_run_id(spec, name, clock)
    if run_exists(store, run):
        raise UsageError(
            f"there is a run {run} already in {store.uri}; choose another --name, or `starling resume {run}`"
        )
    sha256 = pack_code(code, store, leave_out=code_left_out(spec)) if code is not None else None
    if not _write_spec(store, run, 0, spec):
        raise UsageError(
            f"the name {run} was taken by another run that is, or was, being created; choose another --name"
        )
    record = RunRecord(run=run, created_at=clock.now(), code_sha256=sha256, nonce=secrets.token_hex(8))
    try:
        store.create(layout.run_record(run), record.to_bytes())
    except ObjectExists:
        raise UsageError(f"the run {run} was created by somebody else at this moment; choose another --name") from None
    Journal(store, run, clock).write(EventKind.RUN_CREATED, run, "asked for", code_sha256=sha256)
    return record


def request_stop(
    store: Store, run: str, reason: str, clock: Clock | None = None, *, incarnation: int | None = None
) -> RunRecord:
    """Ask a run to checkpoint and end; nothing changes if that was asked before, or the run is over.

    With `incarnation`, only that one is stopped: a run that was resumed in the meantime goes on.
    """
    clock = clock or SystemClock()
    record = RunReader(store, run).record()
    if read_verdict(store, run, record.incarnation) is not None:
        return record
    asked = StopRequest(at=clock.now(), reason=reason)

    def stop(now: RunRecord) -> RunRecord:
        ours = now.incarnation == (record.incarnation if incarnation is None else incarnation)
        return now.but(stop=asked) if ours and now.stop is None else now

    after = change_run(store, run, stop)
    if after.stop == asked:
        Journal(store, run, clock).write(EventKind.STOP_REQUESTED, run, reason)
    return after


def resume_run(
    store: Store, run: str, overrides: list[str], clock: Clock | None = None, *, spec_file: Path | None = None
) -> RunRecord:
    """Let a stopped or failed run go on, with the values of `spec_file` and `overrides` where they may change; a run
    that is not over is left as it is.

    Raises UsageError for values that may not change, if a limit would stop the run again at once, and if somebody
    else resumed the run at the same moment, so that the values given here do not hold.
    """
    clock = clock or SystemClock()
    reader = RunReader(store, run)
    record = reader.record()
    verdict = reader.verdict(record)
    before = reader.spec(record)
    spec = changed_spec(before, run, overrides, spec_file)
    changes = differences(before, spec)
    if verdict is None or verdict.state is RunState.DONE:
        if changes:
            state = "done" if verdict else "not over"
            raise UsageError(f"run {run} is {state}: values can be changed only when resuming a stopped or failed run")
        return record
    check_reach(store, spec)
    _check_that_it_can_go_on(reader, spec, clock)
    incarnation = record.incarnation + 1
    while not _write_spec(store, run, incarnation, spec):
        incarnation += 1  # left by a resume that died before it took effect, with other values
    resumed = change_run(
        store,
        run,
        lambda now: (
            now.but(incarnation=incarnation, resumed_at=clock.now(), stop=None)
            if now.incarnation == record.incarnation
            else now
        ),
    )
    if resumed.incarnation != incarnation and changes:
        raise UsageError(
            f"run {run} was resumed by somebody else at this moment, without your values ({', '.join(changes)}); "
            f"to have them, stop it and resume it again"
        )
    if resumed.incarnation == incarnation:
        reason = (
            f"after it {verdict.state.value}: {verdict.reason}" if verdict.state is RunState.FAILED else "asked for"
        )
        Journal(store, run, clock).write(EventKind.RUN_RESUMED, run, reason, incarnation=incarnation, changes=changes)
    return resumed


def check_reach(store: Store, spec: Spec) -> None:
    """Raises UsageError for a store that the spec's nodes could not reach."""
    if isinstance(spec.provider, AwsSection) and not store.uri.startswith("s3://"):
        raise UsageError(
            f"nodes on AWS cannot reach the folder {store.uri}; use a store such as s3://BUCKET/store, or name none: "
            "then it lies in the bucket that `starling aws setup` made"
        )


def change_run(store: Store, run: str, change: Callable[[RunRecord], RunRecord]) -> RunRecord:
    """Rewrite run.json as it is now, conditionally; returns what is there afterwards. Raises UsageError if unknown."""

    def rewrite(data: bytes | None) -> bytes:
        if data is None:
            raise unknown_run(store, run)
        before = RunRecord.from_bytes(data)
        after = change(before)
        return data if after == before else after.but(nonce=secrets.token_hex(8)).to_bytes()

    _, written = change_object(store, layout.run_record(run), rewrite)
    return RunRecord.from_bytes(written)


def code_left_out(spec: Spec) -> tuple[str, ...]:
    """What a script has saved here is no part of its code: the run would resume from it."""
    return (spec.command.folder,) if spec.command is not None else ()


def new_run_id(spec: Spec, name: str | None, clock: Clock) -> str:
    """`name` if it is given, else one made from the spec's. Raises UsageError for a name that no run can have."""
    if name is None:
        day = datetime.fromtimestamp(clock.now(), UTC).strftime("%y%m%d")
        return f"{spec.name}-{day}-{secrets.token_hex(2)}"
    # Not a '-' first: on every command line it would be taken for an option.
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}", name):
        raise UsageError(f"--name {name}: use up to 60 lower-case letters, digits and '-', not beginning with '-'")
    return name


def run_exists(store: Store, run: str) -> bool:
    try:
        store.stat(layout.run_record(run))
    except ObjectNotFound:
        return False
    return True


def _write_spec(store: Store, run: str, incarnation: int, spec: Spec) -> bool:
    """False if another spec is there; the same one is as good as ours."""
    data = yaml.safe_dump(spec.resolved(), sort_keys=False).encode()
    return first_word(store, layout.spec(run, incarnation), data) == data


def _check_that_it_can_go_on(reader: RunReader, spec: Spec, clock: Clock) -> None:
    facts = reader.facts()
    if why := broken_need(facts.run.run, facts.needs):
        raise UsageError(why)
    over = limit_reached(
        Facts(run=facts.run, spec=spec, verdict=None, nodes=facts.nodes, needs=facts.needs), clock.now()
    )
    if over:
        raise UsageError(f"run {facts.run.run} would be stopped again at once: {over}; raise the limit with -o")
