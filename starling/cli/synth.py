"""`data synth`: rendered images with labels."""

from __future__ import annotations

import os
from pathlib import Path

from starling.cli.output import emit, note, say


def fundus_verb(folder: Path, *, images: int, seed: int, size: int, workers: int | None, as_json: bool) -> None:
    """`data synth fundus DIR`."""
    from starling.trainer.data.synth.folder import write_fundus

    workers = workers or len(os.sched_getaffinity(0))
    summary = write_fundus(folder, images=images, seed=seed, size=size, workers=workers, progress=note)
    if as_json:
        emit(summary)
        return
    levels = ", ".join(f"{level}: {count}" for level, count in summary["levels"].items())
    say(f"{images} images in {folder} (grade {levels}); camera artefacts in {summary['artefacts']:.0%}")
    say(f"next: starling data prepare {folder} fundus --labels trainLabels.csv")
