"""How fast images come from a bucket, beside the libraries one would use instead, and beside ranged GETs alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # so that the file can be run by its path as well

from benchmarks.data_passes import Field, Pass  # noqa: E402
from benchmarks.data_places import peers_python, prepare_place  # noqa: E402
from benchmarks.data_report import report  # noqa: E402
from benchmarks.data_turns import closed_afterwards  # noqa: E402
from benchmarks.data_waiting import waiting  # noqa: E402
from benchmarks.report import Options, Report, main  # noqa: E402
from benchmarks.slow_proxy import slow_proxy  # noqa: E402
from starling.infra.region.s3_server import s3_server  # noqa: E402

DELAY = 0.03
"""Seconds by which the slower proxy holds each request up: about what a bucket in the same region does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much to measure."""

    images: int = 2000
    rounds: int = 5
    far_rounds: int = 3
    pixel_rounds: int = 3


QUICK = Size(images=128, rounds=1, far_rounds=1, pixel_rounds=1)


def measure(options: Options) -> Report:
    """Let all readers read the same images, taking turns; then train on them."""
    size = QUICK if options.quick else Size()
    python, reason = _peers()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(s3_server(folder))
        near = stack.enter_context(slow_proxy(server.endpoint_url))
        far = stack.enter_context(slow_proxy(server.endpoint_url, DELAY))
        place = prepare_place(server, folder, size.images, python)
        field = Field(server=server, near=near, far=far, place=place, folder=folder, no_peers=reason)
        with closed_afterwards(field.readers):
            _race(field, python, size)
        os.environ |= server.environment
        waited = waiting(place.store_uri(server), folder / "home", quick=options.quick)
    return report(place, field.found, waited)


def _peers() -> tuple[Path | None, str]:
    """Their Python, or why there is none."""
    try:
        return peers_python(), ""
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"the peers cannot be installed: {reason}", file=sys.stderr)
        return None, f"could not be installed: {reason}"


def _race(field: Field, python: Path | None, size: Size) -> None:
    field.start(python)
    field.count()
    for _ in range(size.rounds):
        field.round((Pass.COLD, Pass.WARM))
    for _ in range(size.far_rounds):
        field.round((Pass.NEAR, Pass.FAR))
    for _ in range(size.pixel_rounds):
        field.round((Pass.PIXELS_COLD, Pass.PIXELS_WARM))


if __name__ == "__main__":
    sys.exit(main(measure))
