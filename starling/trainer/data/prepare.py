"""Turns images into a dataset: list and plan, pack shards, write the index last.

1. The source is listed and everything is decided from the listing: classes, splits, the order of images (`plan`).
2. Images are read, checked and rendered in parallel and packed into shards in that order (`rendering`, `packing`).
3. The index is written under a condition: a dataset exists, or is another one, from then on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from starling.infra.errors import ObjectCorrupt, ObjectExists, ObjectNotFound, UsageError, VersionConflict
from starling.infra.store import Store
from starling.trainer.data.decode import Inspected, common_format
from starling.trainer.data.index import (
    FORMAT,
    DatasetIndex,
    DatasetPlace,
    ImageFormat,
    LeftOut,
    Split,
    Why,
    locate,
    name_of,
)
from starling.trainer.data.packing import Packing
from starling.trainer.data.plan import Plan, make_plan
from starling.trainer.data.preparing_progress import Pace, Progress
from starling.trainer.data.rendering import Renderer, useful_workers
from starling.trainer.data.rendition import Rendition
from starling.trainer.data.sources.found import LabelTable
from starling.trainer.data.sources.listing import find_images

SHARD_BYTES = 32 * 2**20


def prepare(
    source: str,
    store: Store,
    dest: str,
    *,
    labels: LabelTable | None = None,
    rendition: Rendition | None = None,
    fraction: float | None = None,
    shard_bytes: int = SHARD_BYTES,
    workers: int | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Prepare a folder, a URI or a built-in source as a dataset; return what `starling data prepare --json` prints.

    `dest` is a name in `store`, or a folder or URI. The same images give the same bytes, whatever `workers` is: what
    is there already is not uploaded again (unless `again`). Other content under the same name replaces the index;
    shards of the old one stay. Raises UsageError if the source is not usable, and the store's errors; then no index
    was written, and the next try goes on where this one ended.
    """
    tell = progress or (lambda line: None)
    place, name = locate(store, dest), name_of(dest)
    rendition = rendition or Rendition()
    plan = make_plan(find_images(source, labels), rendition, fraction=fraction, shard_bytes=shard_bytes)
    if not again and (there := _already(place, plan)) is not None and not _is_mended(there, plan, rendition, tell):
        tell(f"dataset {name} was already prepared from just these files; nothing changed")
        return _summary(place, there, uploaded=0, replaced=None)
    images = [image for split in plan.splits.values() for image in split]
    tell(f"{len(images):,} images in {len(plan.classes)} classes ({plan.source.layout})")
    with Renderer(rendition, workers or useful_workers(images)) as renderer:
        packing = Packing(place, plan, renderer, Pace(len(images), "images", tell), again)
        splits = packing.run()
    index = _index(name, plan, splits, packing)
    _check(index)
    replaced = _commit(place, index)
    packing.forget()
    if replaced is None:
        tell(f"dataset {name} was already prepared with this content; nothing changed")
    elif replaced not in ("", index.content_sha256):
        tell(f"dataset {name} had other content before ({replaced[:12]}); runs begun on it will differ")
    return _summary(place, index, uploaded=packing.uploaded, replaced=replaced)


def count_training(source: str) -> int:
    """Training samples that `prepare` would find, if all images can be read. Raises UsageError like `prepare`."""
    plan = make_plan(find_images(source), Rendition(), fraction=None, shard_bytes=SHARD_BYTES)
    return len(plan.splits["train"])


def _already(place: DatasetPlace, plan: Plan) -> DatasetIndex | None:
    """The dataset that is there, if it was made from the same files in the same way and all its shards are there."""
    try:
        index = DatasetIndex.from_bytes(place.store.get(place.index_key).data)
    except (ObjectNotFound, ObjectCorrupt):
        return None
    same = index.inputs_sha256 == plan.inputs_sha256
    shards = [shard for split in index.splits.values() for shard in split.shards]
    return index if same and all(map(place.holds, shards)) else None


def _is_mended(index: DatasetIndex, plan: Plan, rendition: Rendition, tell: Progress) -> bool:
    """Whether an image that was left out can be used now. The listing does not tell: permissions, say, change neither
    size nor time."""
    left_out = {entry.key for entry in index.left_out if entry.why == Why.UNREADABLE}
    images = [image for split in plan.splits.values() for image in split if image.key in left_out]
    if not images:
        return False
    with Renderer(rendition, useful_workers(images)) as renderer:
        image = renderer.first_usable(images)
    if image is not None:
        tell(f"{image.key} was left out, and can be used now")
    return image is not None


def _index(name: str, plan: Plan, splits: dict[str, Split], packing: Packing) -> DatasetIndex:
    left_out = plan.source.left_out + packing.left_out
    image = common_format(Inspected(*kind) for part in packing.parts for kind in part.kinds)
    return DatasetIndex(
        name=name,
        source=plan.source.description,
        inputs_sha256=plan.inputs_sha256,
        content_sha256=_content_hash(plan.classes, image, splits),
        classes=plan.classes,
        image=image,
        splits=splits,
        prepared=plan.prepared,
        left_out=left_out,
        left_out_counts=dict(sorted(Counter(str(entry.why) for entry in left_out).items())),
        whole_images=sum(part.whole_images for part in packing.parts),
        ignored=plan.source.ignored,
    )


def _check(index: DatasetIndex) -> None:
    counts = index.class_counts("train")
    if missing := [name for name, count in zip(index.classes, counts, strict=True) if not count]:
        raise UsageError(f"no readable training image in class {', '.join(missing)}{_example(index.left_out)}")
    if empty := [name for name, split in index.splits.items() if not split.samples]:
        raise UsageError(f"no readable image in split {', '.join(empty)}{_example(index.left_out)}")


def _example(left_out: list[LeftOut]) -> str:
    unreadable = [entry for entry in left_out if entry.why == Why.UNREADABLE]
    return f" (for instance {unreadable[0].key}: {unreadable[0].reason})" if unreadable else ""


def _content_hash(classes: list[str], image: ImageFormat, splits: dict[str, Split]) -> str:
    content = {
        "format": FORMAT,
        "classes": classes,
        "image": image.model_dump(),
        "splits": {
            name: split.model_dump(exclude={"samples"})
            | {"samples": [sample._replace(patient=0) for sample in split.samples]}
            for name, split in splits.items()
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _commit(place: DatasetPlace, index: DatasetIndex) -> str | None:
    """Make this the dataset. Returns None if it was already, else the content hash it had before ("" if none)."""
    while True:
        try:
            current = place.store.get(place.index_key)
            if current.data == index.to_bytes():
                return None
            before = _content_of(current.data)
            place.store.replace(place.index_key, index.to_bytes(), current.version)
            return None if before == index.content_sha256 else before
        except ObjectNotFound:
            try:
                place.store.create(place.index_key, index.to_bytes())
                return ""
            except ObjectExists:
                continue  # somebody prepares the same dataset at this moment: look again
        except VersionConflict:
            continue


def _content_of(data: bytes) -> str:
    try:
        return DatasetIndex.from_bytes(data).content_sha256
    except ObjectCorrupt:
        return "damaged"  # whatever it was, it gives way to an index that can be read


def _summary(place: DatasetPlace, index: DatasetIndex, *, uploaded: int, replaced: str | None) -> dict[str, Any]:
    shards = [shard for split in index.splits.values() for shard in split.shards]
    return {
        "dataset": index.name,
        "uri": place.uri,
        "content_sha256": index.content_sha256,
        "classes": index.classes,
        "image": index.image.model_dump(),
        "splits": {name: len(split.samples) for name, split in index.splits.items()},
        "class_counts": {name: index.class_counts(name) for name in index.splits},
        "prepared": index.prepared.model_dump(),
        "shards": len(shards),
        "bytes": sum(shard.size for shard in shards),
        "uploaded_shards": uploaded,
        "already_prepared": replaced is None,
        "replaced": replaced or None,
        "left_out": [entry.model_dump(mode="json") for entry in index.left_out],
        "left_out_counts": index.left_out_counts,
        "whole_images": index.whole_images,
        "ignored": index.ignored,
    }
