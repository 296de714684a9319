"""`data prepare`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starling.cli.opening import store_for
from starling.cli.output import emit, note, say, size
from starling.infra.errors import UsageError
from starling.infra.sizes import parse_size

if TYPE_CHECKING:
    from starling.trainer.data.sources.found import LabelTable

TOLD = 5
"""How many of the things that were left out are listed; all of them are in the index, and in --json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """The options of `data prepare`."""

    names: list[str]
    """SOURCE and DEST; with `source` only DEST."""
    source: str | None
    labels: LabelTable
    split: float | None
    side: int | None
    crop_retina: bool
    quality: int
    lossless: bool
    shard_size: str
    workers: int | None
    again: bool


def prepare_verb(wish: Wish, store: str | None, *, as_json: bool) -> None:
    """`prepare SOURCE DEST`, or `prepare [DEST] --from SOURCE`."""
    from starling.trainer.data.prepare import prepare
    from starling.trainer.data.rendition import Rendition

    source, dest = _source_and_dest(wish)
    rendition = Rendition(size=wish.side, crop_retina=wish.crop_retina, quality=wish.quality, lossless=wish.lossless)
    summary = prepare(
        source,
        store_for(store),
        dataset_place(dest),
        labels=wish.labels,
        rendition=rendition,
        fraction=wish.split,
        shard_bytes=_shard_bytes(wish.shard_size),
        workers=wish.workers,
        again=wish.again,
        progress=note,
    )
    if as_json:
        emit(summary)
    else:
        _tell(summary)


def dataset_place(dest: str) -> str:
    """A dataset's name or URI as it is; any other path made absolute (`./pets`, `~/pets`, `sets/pets`)."""
    if "://" in dest or ("/" not in dest and not dest.startswith((".", "~"))):
        return dest
    return str(Path(dest).expanduser().resolve())


def _source_and_dest(wish: Wish) -> tuple[str, str]:
    from starling.trainer.data.sources.built_in import BUILT_IN

    names, source = wish.names, wish.source
    if source is None:
        if len(names) != 2:
            raise UsageError("give SOURCE and DEST, like: starling data prepare FOLDER NAME")
        source, dest = names
    elif len(names) > 1:
        raise UsageError(f"with --from there is only one name, the dataset's; drop {names[0]}")
    elif names:
        dest = names[0]
    elif source in BUILT_IN:
        dest = source
    else:
        raise UsageError(f"name the dataset: starling data prepare NAME --from {shlex.quote(source)}")
    if "://" not in source and dataset_place(dest) == str(Path(source).expanduser().resolve()):
        raise UsageError(f"SOURCE and DEST are the same folder, {dest}: give the dataset a folder of its own")
    return source, dest


def _shard_bytes(text: str) -> int:
    try:
        found = parse_size(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise UsageError(f"--shard-size: {error}") from error
    assert isinstance(found, int)
    if found < 1:
        raise UsageError("--shard-size: give at least one byte, better some 32MiB")
    return found


def _tell(summary: dict[str, Any]) -> None:
    splits = ", ".join(f"{split}: {count}" for split, count in summary["splits"].items())
    say(f"dataset {summary['dataset']} is at {summary['uri']} ({splits})")
    say(f"{len(summary['classes'])} classes, {summary['shards']} shards, {size(summary['bytes'])}")
    if summary["prepared"]["crop_retina"] and summary["whole_images"]:
        say(f"no retina was found in {summary['whole_images']} images; they were left whole")
    if summary["left_out"]:
        say("left out: " + ", ".join(f"{count} {why}" for why, count in summary["left_out_counts"].items()))
        for entry in summary["left_out"][:TOLD]:
            say(f"  {entry['key']}: {entry['reason']}")
        if len(summary["left_out"]) > TOLD:
            say(f"  ... all {len(summary['left_out'])} of them: starling data inspect --json")
