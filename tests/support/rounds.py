"""Runs the trainer's real worker processes for a job, a round at a time, without supervisors: fast and scripted."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starling.infra import layout
from starling.infra.store import open_store
from starling.trainer.checkpoint.manifest import Manifest, committed_steps, read_manifest
from starling.trainer.progress import StepCounter
from starling.trainer.round import RoundInfo
from starling.trainer.worker import run_worker
from tests.support.ports import kept_port

PATIENCE = 180.0
"""For a round that takes seconds on a machine of its own."""


def training_spec(**changes: Any) -> dict[str, Any]:
    """A resolved `training` section for ProbeTask: 203 samples, so 13 steps an epoch with a tail of 11."""
    return {
        "epochs": 2,
        "global_batch": 16,
        "virtual_shards": 8,
        "seed": 3,
        "optimizer": {
            "name": "adamw",
            "lr": 0.01,
            "momentum": 0.9,
            "weight_decay": 0.01,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
        },
        "schedule": {"name": "cosine", "warmup_steps": 3, "final_factor": 0.1, "step_epochs": [], "step_factor": 0.1},
        "precision": "fp32",
        "exact": True,
        "clip_norm": 1.0,
        "on_mismatch": "refuse",
        "threads_per_rank": 1,
        "device": "cpu",
        "phases": [],
        "strategy": "replicated",
        "activation_checkpointing": False,
        "channels_last": False,
        **changes,
    }


def probe_spec(
    options: dict[str, Any] | None = None, nodes: int = 4, ranks: int = 1, **training: Any
) -> dict[str, Any]:
    """A whole resolved spec, as far as the trainer reads it."""
    return {
        "task": {"name": "tests.support.tasks:ProbeTask", "options": options or {}},
        "model": None,
        "data": None,
        "needs": {},
        "training": training_spec(**training),
        "checkpoint": {"every_steps": None, "every_minutes": None, "keep": 3},
        "nodes": {"min": 1, "max": 4, "gpus_per_node": 0, "ranks_per_node": ranks},
    }


@dataclass
class Run:
    """One run in a folder."""

    folder: Path
    store_uri: str
    spec: dict[str, Any]
    name: str = "r"
    round: int = 0

    def train(
        self,
        nodes: list[str],
        *,
        stop_at: int | None = None,
        kill_at: int | None = None,
        ask: str = "stop",
        environment: dict[str, dict[str, str]] | None = None,
    ) -> list[int | None]:
        """Run one round on these nodes (ids; a node keeps its disk from round to round) and return exit codes.

        `stop_at`: ask the first node to stop (or whatever `ask` says) once it has completed so many steps;
        `kill_at`: SIGKILL all of it; `environment`: more of it, by node. The node goes no further before that is done.
        """
        with kept_port() as port:
            return self._train(nodes, port, stop_at, kill_at, ask, environment or {})

    def _train(
        self,
        nodes: list[str],
        port: int,
        stop_at: int | None,
        kill_at: int | None,
        ask: str,
        environment: dict[str, dict[str, str]],
    ) -> list[int | None]:
        ranks = self.spec["nodes"]["ranks_per_node"]
        awaited = stop_at if stop_at is not None else kill_at
        gate = self.work(nodes[0]) / "gate"
        context = multiprocessing.get_context("forkserver")
        processes = []
        for node_rank, node in enumerate(nodes):
            job = self._prepare(node, nodes, node_rank)
            for local_rank in range(ranks):
                variables = {
                    **environment.get(node, {}),
                    "RANK": str(node_rank * ranks + local_rank),
                    "WORLD_SIZE": str(len(nodes) * ranks),
                    "LOCAL_RANK": str(local_rank),
                    "LOCAL_WORLD_SIZE": str(ranks),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
                held = (str(gate), awaited) if awaited is not None and node_rank == 0 else None
                processes.append(context.Process(target=_worker, args=(str(job), variables, held)))
        if awaited is not None:
            gate.touch()
        try:
            for process in processes:
                process.start()
            if awaited is not None:
                self._await_step(nodes[0], awaited, processes)
            if stop_at is not None:
                (self.work(nodes[0]) / "control" / ask).write_text("{}")
            if kill_at is not None:
                for process in processes[:ranks]:
                    process.kill()
        finally:
            gate.unlink(missing_ok=True)
            for process in processes:
                process.join(PATIENCE)
                process.kill()
        for node in nodes:
            (self.work(node) / "control" / ask).unlink(missing_ok=True)
        self.round += 1
        return [process.exitcode for process in processes]

    def work(self, node: str) -> Path:
        return self.folder / node / "work"

    def manifests(self) -> list[Manifest]:
        store, prefix = open_store(self.store_uri), layout.checkpoints(self.name)
        return [read_manifest(store, prefix, step) for step in committed_steps(store, prefix)]

    def _prepare(self, node: str, nodes: list[str], node_rank: int) -> Path:
        work = self.work(node)
        work.mkdir(parents=True, exist_ok=True)
        job = {
            "run": self.name,
            "incarnation": 0,
            "node": node,
            "address": "127.0.0.1",
            "store_uri": self.store_uri,
            "spec": self.spec,
            "code_dir": None,
            "code_sha256": None,
            "work_dir": str(work),
        }
        (work / "job.json").write_text(json.dumps(job))
        RoundInfo(number=self.round, nodes=tuple(nodes), node_rank=node_rank, fit=True).write(work)
        return work / "job.json"

    def _await_step(self, node: str, step: int, processes: list[Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and all(process.is_alive() for process in processes):
            path = self.work(node) / "steps"
            if path.exists() and StepCounter(path).read() >= step:
                return
            time.sleep(0.005)


def _worker(job: str, environment: dict[str, str], held: tuple[str, int] | None = None) -> None:
    """`held`: a file, and the number of steps after which nothing is done for as long as it exists."""
    os.environ.update(environment)
    if held is not None:
        _hold(Path(held[0]), held[1])
    run_worker(job)


def _hold(gate: Path, steps: int) -> None:
    write = StepCounter.write

    def write_and_wait(counter: StepCounter, step: int) -> None:
        write(counter, step)
        while step >= steps and gate.exists() and os.getppid() != 1:
            time.sleep(0.005)

    StepCounter.write = write_and_wait  # type: ignore[method-assign]
