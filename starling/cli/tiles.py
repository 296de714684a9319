"""`data tiles`: from images and the places of their lesions to a source for `data prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starling.cli.output import emit, note, say

if TYPE_CHECKING:
    from starling.trainer.data.sources.found import LabelTable
    from starling.trainer.data.tiles import Cut


def tiles_verb(images: str, folder: Path, lesions: Path, labels: LabelTable, cut: Cut, *, as_json: bool) -> None:
    from starling.trainer.data.tiles import cut_tiles

    tiles = cut_tiles(images, folder, lesions, cut, labels=labels, progress=None if as_json else note)
    if as_json:
        emit({"folder": str(folder), "splits": tiles.splits, "lesions_cut_off": tiles.cut_off})
        return
    say(f"{sum(sum(classes.values()) for classes in tiles.splits.values())} tiles in {folder}")
    if tiles.cut_off:
        say(f"left out: {tiles.cut_off} lesions that --crop-retina cuts off")
    say(f"next: starling data prepare {folder} {folder.name}")
