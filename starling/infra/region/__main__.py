"""`python -m starling.infra.region FOLDER`: an emulated region as a process of its own.

It prints one JSON document a line on stdout: {"environment": {...}} once it is open, and {"said": ...} for everything
that its script does. On stdin it takes the words `begin`, which starts the script's clock, and `end`. The end of stdin
without that word means that whoever started us has died: then FOLDER is removed, too. However the region ends, it
leaves no process that has --home as STARLING_HOME. (`process.py` is the other side of this.)
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from starling.infra.errors import StarlingError
from starling.infra.logs import log_to_stderr
from starling.infra.processes import HOME, kill_all
from starling.infra.region.driver import Driver
from starling.infra.region.prices import DEFAULT_FILE
from starling.infra.region.region import EmulatedRegion
from starling.infra.region.script import read_script
from starling.infra.region.trace import as_script, read_trace

TICK_SECONDS = 0.1


def main() -> int:
    arguments = _parse()
    log_to_stderr()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us ends us
    orphaned = False
    try:
        script = read_script(arguments.script) if arguments.script else ()
        traced = as_script([read_trace(text) for text in arguments.trace])
        with EmulatedRegion(
            arguments.folder, region=arguments.region, prices=arguments.prices, scale=arguments.scale
        ) as region:
            driver = Driver(
                region.cloud,
                script,
                traced=traced,
                scale=arguments.scale,
                seed=arguments.seed,
                say=lambda text: _tell({"said": text}),
            )
            driver.play()
            _tell({"environment": region.environment})
            orphaned = _serve(region, driver)
    except StarlingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        if arguments.home is not None:
            kill_all({HOME: str(arguments.home.resolve())})
        if orphaned:
            shutil.rmtree(arguments.folder)
    return 0


def _serve(region: EmulatedRegion, driver: Driver) -> bool:
    """Until we are told to end; True if nobody is there any more to tell us."""
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], TICK_SECONDS)
        words = os.read(sys.stdin.fileno(), 4096).decode().split() if readable else []
        if "end" in words:
            return False
        if readable and not words:
            return True
        if "begin" in words:
            driver.begin()
        driver.play()
        region.hypervisor.check()


def _tell(document: dict[str, Any]) -> None:
    try:
        print(json.dumps(document), flush=True)
    except BrokenPipeError:  # nobody listens any more; the end of stdin will tell as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="starling.infra.region", description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything of it lies; a short path")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--prices", type=Path, default=DEFAULT_FILE, help="file of prices and placement scores")
    parser.add_argument("--script", type=Path, help="YAML file of what happens")
    parser.add_argument("--trace", action="append", default=[], metavar="ZONE=[MEANING:]FILE", help="a spot trace")
    parser.add_argument("--scale", type=float, default=1.0, help="region seconds that pass in one second")
    parser.add_argument("--seed", type=int, default=0, help="decides which instances the script means")
    parser.add_argument("--home", type=Path, help="STARLING_HOME of everything that is to end with the region")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
