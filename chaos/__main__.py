"""`python -m chaos --seed N --events N --store folder|s3`, or `python -m chaos --replay FILE`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console

from chaos.page import summary, table_of
from chaos.schedule import Schedule, schedule
from chaos.session import Finding, Session
from starling.infra.errors import StarlingError

console = Console(highlight=False, width=max(120, Console().width))


def main() -> int:
    """Exit code 0 if every promise held, 1 if not, 2 for wrong usage."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # clean up, as on Ctrl-C
    given = _arguments()
    session = Session(lambda text: console.print(text, markup=False), given.keep)
    try:
        schedules = [Schedule.read(given.replay)] if given.replay else _schedules(given)
        findings = [_play(session, each) for each in schedules]
    except StarlingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    failed = [finding for finding in findings if finding.violations]
    if len(findings) > 1:
        console.print(f"{len(findings)} schedules, {len(failed)} of them broke a promise")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description="Trains while things go wrong; see docs/chaos.md.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="so many schedules, of this seed and those after it")
    parser.add_argument("--events", type=int, default=10, help="faults in a schedule")
    parser.add_argument("--store", choices=("folder", "s3"), default="folder")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play this schedule instead")
    parser.add_argument("--keep", type=Path, default=Path("chaos-failures"), help="where records of failures go")
    parser.add_argument("--print", action="store_true", help="only print the schedule")
    given = parser.parse_args()
    if given.print:
        for each in [Schedule.read(given.replay)] if given.replay else _schedules(given):
            print(each)
        sys.exit(0)
    return given


def _schedules(given: argparse.Namespace) -> list[Schedule]:
    return [schedule(seed, given.events, given.store) for seed in range(given.seed, given.seed + given.seeds)]


def _play(session: Session, each: Schedule) -> Finding:
    console.rule(f"seed {each.seed}, {len(each.faults)} faults, store: {each.store}")
    finding = session.play(each)
    console.print(table_of(finding))
    console.print(summary(finding.evidence), markup=False)
    for remark in finding.evidence.remarks:
        console.print(remark, markup=False)
    if finding.violations:
        _tell_failure(finding)
    return finding


def _tell_failure(finding: Finding) -> None:
    console.print(f"\n[red]BROKEN[/] by this schedule:\n{finding.schedule}")
    for violation in finding.violations:
        console.print(f"* {violation}", markup=False, soft_wrap=True)
    console.print(
        f"events and logs: {finding.kept}\nagain: python -m chaos --replay {finding.kept}/schedule.json",
        markup=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
