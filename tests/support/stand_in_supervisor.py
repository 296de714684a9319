"""Stands in for `starling.trainer.supervisor`: keeps the agent's contract, trains nothing.

What it does is told by the environment variable STAND_IN:
train     a step every 0.1 s with one worker; heeds control/leave and control/stop
stubborn  like train, but with workers that do all they can to outlive the node
deaf      like train, but heeds no control file
wait      joins no round, heeds control files
crash     prints a traceback and exits with 1
code      prints what the user's module users_own says, and is done
unfit     says that this node is unfit
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from starling.infra.files import write_atomically
from starling.infra.processes import die_with_parent
from starling.infra.records import Progress

SLEEP = "import time; time.sleep(600)"
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.setsid()
if os.fork(): os._exit(0)
if os.fork(): os._exit(0)
until = time.monotonic() + 600
children = []
while time.monotonic() < until:
    children.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]))
    children[:-3] and children.pop(0).kill()
    time.sleep(0.05)
"""


def main() -> int:
    die_with_parent()
    work = Path(json.loads(Path(sys.argv[sys.argv.index("--job") + 1]).read_text())["work_dir"])
    mode = os.environ["STAND_IN"]
    print(f"stand-in supervisor: {mode}", flush=True)
    if mode == "crash":
        raise RuntimeError("the stand-in crashed as told")
    if mode == "code":
        print(f"code of {importlib.import_module('users_own').WHO}")
        return 0
    if mode == "unfit":
        (work / "unfit.txt").write_text("first line\nwrong kind of processor\n")
        return 11
    _start_workers(stubborn=mode == "stubborn")
    return _train(work, mode)


def _start_workers(*, stubborn: bool) -> None:
    subprocess.Popen([sys.executable, "-S", "-c", SLEEP], start_new_session=True)
    if stubborn:
        subprocess.Popen([sys.executable, "-c", STUBBORN])
        # Without the marker: found by descent only.
        subprocess.Popen([sys.executable, "-S", "-c", STUBBORN], env={})
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _train(work: Path, mode: str) -> int:
    step = 0
    while True:
        time.sleep(0.1)
        if mode != "deaf" and (work / "control" / "leave").exists():
            return 10
        if mode != "deaf" and (work / "control" / "stop").exists():
            return 0
        if mode != "wait":
            step += 1
            _report(work, step)


def _report(work: Path, step: int) -> None:
    progress = Progress(at=time.time(), step=step, total_steps=1000, epoch=0, round=1, world_size=1, rank=0)
    write_atomically(work / "progress.json", progress.to_bytes())
    with (work / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": step}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
