"""`data inspect`, `data verify` and `data sample`: look at a dataset that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starling.cli.opening import store_for
from starling.cli.output import emit, note, say, size, table
from starling.cli.preparing import TOLD, dataset_place
from starling.infra.errors import UsageError
from starling.infra.store.oserrors import os_errors_named


def inspect_verb(dataset: str, store: str | None, *, as_json: bool) -> None:
    from starling.trainer.data.describe import describe

    found = describe(store_for(store), dataset_place(dataset))
    if as_json:
        emit(found)
    else:
        say(_described(found))


def verify_verb(dataset: str, store: str | None, workers: int | None, *, as_json: bool) -> int:
    """Exit code: 1 if anything is damaged."""
    from starling.trainer.data.verify import verify

    found = verify(store_for(store), dataset_place(dataset), workers=workers, progress=note)
    if as_json:
        emit(found)
    elif found["intact"]:
        say(
            f"dataset {found['dataset']} is intact: {found['shards']} shards, {found['images']:,} images, "
            f"{size(found['bytes'])}"
        )
    else:
        for damage in found["damaged"]:
            say(f"{damage['shard']}: {damage['key'] + ': ' if damage['key'] else ''}{damage['problem']}")
        say(
            f"dataset {found['dataset']} is damaged. To mend it, prepare it as before, from the same source with the "
            "same options, and --again: what is intact gets the same bytes"
        )
    return 0 if found["intact"] else 1


def sample_verb(dataset: str, out: Path, split: str, per_class: int, store: str | None, *, as_json: bool) -> None:
    from starling.trainer.data.contact_sheet import contact_sheet

    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the sheet is a PNG; give a name that ends in .png")
    sheet = contact_sheet(store_for(store), dataset_place(dataset), split, per_class)
    with os_errors_named("write", out):
        sheet.save(out, "PNG")
    if as_json:
        emit({"sheet": str(out.resolve()), "width": sheet.width, "height": sheet.height})
    else:
        say(f"{out}: {sheet.width} x {sheet.height} pixels")


def _described(found: dict[str, Any]) -> str:
    splits = found["splits"]
    rows = [["class", *splits]]
    for label, name in enumerate(found["classes"]):
        rows.append([name, *(f"{split['class_counts'][label]:,}" for split in splits.values())])
    rows.append(["all", *(f"{split['images']:,}" for split in splits.values())])
    rows.append(["shards", *(str(split["shards"]) for split in splits.values())])
    rows.append(["size", *(size(split["bytes"]) for split in splits.values())])
    smallest, median, largest = (size(count) for count in found["image_bytes"].values())
    lines = [
        f"dataset {found['dataset']} at {found['uri']}",
        f"from {found['source']} ({found['prepared']['layout']})",
        "",
        table(rows),
        "",
        f"images: {_pixels(found['image'])}; {smallest} to {largest}, half of them below {median}",
        f"split: {_split(found['prepared'])}",
        f"made: {_made(found['prepared'], found['whole_images'])}",
        f"content: {found['content_sha256']}",
        *_left_out(found),
    ]
    return "\n".join(lines)


def _pixels(image: dict[str, Any]) -> str:
    colours = "grey" if image["mode"] == "L" else "colour"
    return f"{image['width']} x {image['height']}, {colours}" if image["width"] else f"of different sizes, {colours}"


def _split(prepared: dict[str, Any]) -> str:
    by = {"column": "by a column of the table", "folders": "by folders"}
    how = by.get(prepared["split_by"]) or f"{prepared['split_fraction']:g} of each class validates, by a hash"
    return how + ("; all images of a patient are in one split" if prepared["patient_wise"] else "")


def _made(prepared: dict[str, Any], whole: int) -> str:
    steps = []
    if prepared["crop_retina"]:
        steps.append("cut to the retina" + (f" ({whole} images without one left whole)" if whole else ""))
    if prepared["size"]:
        steps.append(f"{prepared['size']} pixels a side")
    if prepared["quality"]:
        steps.append(f"JPEG {prepared['quality']}" + (", PNG kept lossless" if prepared["lossless"] else ""))
    return ", ".join(steps) or "the source's own bytes"


def _left_out(found: dict[str, Any]) -> list[str]:
    lines = []
    if found["left_out"]:
        lines.append("left out: " + ", ".join(f"{count} {why}" for why, count in found["left_out_counts"].items()))
        lines += [f"  {entry['key']}: {entry['reason']}" for entry in found["left_out"][:TOLD]]
        if len(found["left_out"]) > TOLD:
            lines.append(f"  ... all {len(found['left_out'])} of them with --json")
    if found["ignored"]:
        lines.append("ignored: " + ", ".join(f"{count} {kind}" for kind, count in found["ignored"].items()))
    return lines
