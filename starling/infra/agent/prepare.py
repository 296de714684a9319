"""Makes a node ready for its run: checks its GPUs, fetches the spec and the user's code, sets up, writes the job."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from starling.infra import layout
from starling.infra.agent.control import WorkFolder
from starling.infra.agent.requirements import install_requirements
from starling.infra.agent.setup_commands import run_setup
from starling.infra.clock import Clock
from starling.infra.code import unpack_code
from starling.infra.errors import ObjectCorrupt, ObjectNotFound, StarlingError, StoreError, StoreUnavailable, UsageError
from starling.infra.files import write_json
from starling.infra.records import Failure, NodeIntent, RunRecord
from starling.infra.store.base import Store
from starling.infra.supervision import SCRIPT_MODULE, TRAINER_MODULE, join_seconds

JOIN_MARGIN_SECONDS = 120.0
"""For the round of a script to end and the next one to begin, once newcomers are let in."""
RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What the supervisor needs, and the limits that the agent keeps."""

    job_file: Path
    python_path: tuple[Path, ...]
    supervisor_module: str
    stall: float
    idle: float
    grace: float = 0.0
    """How long a script of the user's may take to save and end once it is asked to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfit:
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    reason: str


Outcome = Prepared | Unfit | Broken


class Preparation:
    """Runs `prepare` on a thread of its own, so that notices are heeded while requirements are installed."""

    def __init__(self, work: Callable[[], Outcome]) -> None:
        self.outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._work = work
        threading.Thread(target=self._run, name="prepare", daemon=True).start()

    def poll(self) -> Outcome | None:
        """The outcome, once there is one. Raises what was not foreseen."""
        if self._error is not None:
            raise self._error
        return self.outcome

    def _run(self) -> None:
        try:
            self.outcome = self._work()
        except BaseException as error:  # handed to the main thread, which raises it
            self._error = error


def prepare(
    store: Store,
    node: str,
    folder: Path,
    address: str,
    clock: Clock,
    gpu_complaint: Callable[[int], str | None],
    sink: Callable[[bytes], None],
) -> Outcome:
    """Do it all; wait for a store that is away. An error of the run (not of this machine) is recorded as a Failure.
    `sink` takes what the user's setup commands print."""
    while True:
        try:
            return _prepare(store, node, folder, address, clock, gpu_complaint, sink)
        except ObjectNotFound as error:
            return Broken(reason=f"the node's records are not in the store: {error}")
        except StoreUnavailable as error:
            _log.warning("waiting for the store: %s", error)
            clock.sleep(RETRY_SECONDS)


def _prepare(
    store: Store,
    node: str,
    folder: Path,
    address: str,
    clock: Clock,
    gpu_complaint: Callable[[int], str | None],
    sink: Callable[[bytes], None],
) -> Outcome:
    intent = NodeIntent.from_bytes(store.get(layout.intent(node)).data)
    record = RunRecord.from_bytes(store.get(layout.run_record(intent.run)).data)
    try:
        spec = _read_spec(store, intent)
        if (reason := gpu_complaint(int(spec["nodes"]["gpus_per_node"]))) is not None:
            return Unfit(reason=reason)
        python_path = _fetch_code(store, record.code_sha256, folder)
        run_setup(
            spec.get("setup", []),
            folder=python_path[-1] if python_path else folder,
            done=folder / "setup.done",
            content=record.code_sha256 or "",
            python_path=python_path,
            sink=sink,
        )
    except StoreUnavailable:
        raise
    except StarlingError as error:
        _record_failure(store, intent, error, clock.now())
        return Broken(reason=str(error))
    work = WorkFolder(folder / "work" / intent.run)
    work.make()
    write_json(work.job_file, _job(intent, store.uri, address, spec, record.code_sha256, python_path, work.path))
    limits, command = spec["limits"], spec.get("command")
    # Newcomers may have to wait for the script to save, which is no idling.
    wait = join_seconds(float(command["every"])) + JOIN_MARGIN_SECONDS if command else 0.0
    return Prepared(
        job_file=work.job_file,
        python_path=python_path,
        supervisor_module=SCRIPT_MODULE if command else TRAINER_MODULE,
        stall=float(limits["stall"]),
        idle=max(float(limits["idle"]), wait),
        grace=float(command["grace"]) if command else 0.0,
    )


def _read_spec(store: Store, intent: NodeIntent) -> dict[str, Any]:
    key = layout.spec(intent.run, intent.incarnation)
    spec = yaml.safe_load(store.get(key).data)
    missing = [section for section in ("nodes", "limits") if not isinstance(spec, dict) or section not in spec]
    if missing:
        raise UsageError(f"{key} is no resolved spec: it lacks {' and '.join(missing)}")
    return dict(spec)


def _fetch_code(store: Store, sha256: str | None, folder: Path) -> tuple[Path, ...]:
    """What goes onto the supervisor's PYTHONPATH, in order: installed requirements, then the user's code."""
    if sha256 is None:
        return ()
    code_dir = unpack_code(store, sha256, folder / "code")
    site_dir = folder / "site"
    install_requirements(code_dir, site_dir)
    return (site_dir, code_dir)


def _job(
    intent: NodeIntent,
    store_uri: str,
    address: str,
    spec: dict[str, Any],
    code_sha256: str | None,
    python_path: tuple[Path, ...],
    work: Path,
) -> dict[str, Any]:
    return {
        "run": intent.run,
        "incarnation": intent.incarnation,
        "node": intent.node,
        "address": address,
        "store_uri": store_uri,
        "spec": spec,
        "code_dir": str(python_path[-1]) if python_path else None,
        "code_sha256": code_sha256,
        "work_dir": str(work),
    }


def _record_failure(store: Store, intent: NodeIntent, error: StarlingError, now: float) -> None:
    """Tell the judges of crash loops; what every node would run into is fatal."""
    failure = Failure(
        at=now,
        node=intent.node,
        rank=0,
        round=0,
        step=0,
        error=str(error).splitlines()[0],
        traceback=str(error),
        fatal=isinstance(error, UsageError | ObjectNotFound | ObjectCorrupt),
    )
    key = f"{layout.failures(intent.run, intent.incarnation)}{now * 1e6:017.0f}-{secrets.token_hex(4)}.json"
    try:
        store.put(key, failure.to_bytes())
    except StoreError as away:  # the node ends anyway, for the error that it could not record
        _log.error("the failure could not be recorded: %s", away)
