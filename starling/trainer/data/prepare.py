"""Turns images into a dataset in a store: shards first, the index last."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectExists, ObjectNotFound, UsageError, VersionConflict
from starling.infra.store import Store
from starling.trainer.data.decode import Inspected, common_format, inspect
from starling.trainer.data.index import (
    FORMAT,
    DatasetIndex,
    DatasetPlace,
    ImageFormat,
    Sample,
    Shard,
    Split,
    Unreadable,
    check_name,
    dataset_uri,
)
from starling.trainer.data.shard import ShardWriter
from starling.trainer.data.source import FoundImage, Source, find_images

SHARD_BYTES = 32 * 2**20
READ_AT_ONCE = 64

Progress = Callable[[str], None]


def prepare(
    source: str,
    store: Store,
    name: str,
    *,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Prepare "digits" or an image folder as dataset `name`; return what `starling data prepare --json` prints.

    The same images give the same bytes: what the store already has is not uploaded again. Other content under the
    same name replaces the index; shards of the old one stay. UsageError if the source is not usable.
    """
    place = DatasetPlace(store=store, prefix=layout.dataset(check_name(name)))
    job = _Job(place, find_images(source), shard_bytes, progress or (lambda line: None))
    index = job.index(name, job.write())
    replaced = _commit(place, index)
    if replaced is None:
        job.progress(f"dataset {name} was already prepared with this content; nothing changed")
    elif replaced:
        job.progress(f"dataset {name} had other content before ({replaced[:12]}); runs begun on it will differ")
    return _summary(place, index, job.uploaded, replaced)


@dataclass
class _Job:
    """One preparation under way."""

    place: DatasetPlace
    source: Source
    shard_bytes: int
    progress: Progress
    seen: set[Inspected] = field(default_factory=set)
    unreadable: list[Unreadable] = field(default_factory=list)
    uploaded: int = 0

    @property
    def classes(self) -> list[str]:
        return sorted({image.class_name for image in self.source.images})

    def write(self) -> dict[str, Split]:
        """Upload all shards that the store lacks."""
        splits = {}
        with tempfile.TemporaryDirectory(prefix="starling-prepare-") as folder:
            for name in sorted({image.split for image in self.source.images}):
                images = [image for image in self.source.images if image.split == name]
                splits[name] = self._split(name, sorted(images, key=lambda image: image.key), Path(folder))
        _check(splits, self.classes, self.unreadable)
        return splits

    def index(self, name: str, splits: dict[str, Split]) -> DatasetIndex:
        image = common_format(self.seen)
        return DatasetIndex(
            name=name,
            source=self.source.description,
            content_sha256=_content_hash(self.classes, image, splits),
            classes=self.classes,
            image=image,
            splits=splits,
            unreadable=self.unreadable,
            ignored=self.source.ignored,
        )

    def _split(self, name: str, images: list[FoundImage], folder: Path) -> Split:
        labels = {class_name: label for label, class_name in enumerate(self.classes)}
        samples: list[Sample] = []
        shards: list[Shard] = []
        readable = self._readable(images)
        waiting = next(readable, None)
        while waiting:
            with ShardWriter(folder / "shard.tar") as shard:
                while waiting and (shard.size == 0 or shard.size + len(waiting[1]) <= self.shard_bytes):
                    image, data = waiting
                    offset = shard.add(image.key, data)
                    label = labels[image.class_name]
                    samples.append(Sample(len(shards), offset, len(data), label, crc32(data), image.key))
                    waiting = next(readable, None)
                shards.append(self._upload(shard, f"{name}/shard-{len(shards):05}"))
            self.progress(f"{name}: {len(samples)} of {len(images)} images in {len(shards)} shards")
        return Split(samples=samples, shards=shards)

    def _readable(self, images: list[FoundImage]) -> Iterator[tuple[FoundImage, bytes]]:
        """Images with their bytes, in order; those that cannot be read or decoded go to `unreadable`."""
        remaining = iter(images)
        with ThreadPoolExecutor(thread_name_prefix="prepare") as pool:
            while chunk := list(islice(remaining, READ_AT_ONCE)):
                for image, result in zip(chunk, pool.map(_read, chunk), strict=True):
                    if isinstance(result, str):
                        self.unreadable.append(Unreadable(key=image.key, reason=result))
                        self.progress(f"left out {image.key}: {result}")
                    else:
                        self.seen.add(result[1])
                        yield image, result[0]

    def _upload(self, shard: ShardWriter, stem: str) -> Shard:
        sha256 = shard.finish()
        written = Shard(key=f"{stem}-{sha256[:16]}.tar", size=shard.size, sha256=sha256)
        if not _holds(self.place, written):
            self.place.store.upload(shard.path, self.place.shard_key(written))
            self.uploaded += 1
        return written


def _read(image: FoundImage) -> tuple[bytes, Inspected] | str:
    """An image's bytes and kind, or why it cannot be used."""
    try:
        data = image.read()
        return data, inspect(data)
    except Exception as error:  # Pillow raises almost anything on damaged input; the user gets it as the reason
        return " ".join(f"{type(error).__name__}: {error}".split())


def _check(splits: dict[str, Split], classes: list[str], unreadable: list[Unreadable]) -> None:
    learnt = {sample.label for sample in splits["train"].samples}
    if missing := [name for label, name in enumerate(classes) if label not in learnt]:
        example = f" (for instance {unreadable[0].key}: {unreadable[0].reason})" if unreadable else ""
        raise UsageError(f"no readable training image in class {', '.join(missing)}{example}")
    if empty := [name for name, split in splits.items() if not split.samples]:
        raise UsageError(f"no readable image in split {', '.join(empty)} (see the reasons listed)")


def _holds(place: DatasetPlace, shard: Shard) -> bool:
    """Whether the store has this shard; its key tells its content."""
    try:
        return place.store.stat(place.shard_key(shard)).size == shard.size
    except ObjectNotFound:
        return False


def _content_hash(classes: list[str], image: ImageFormat, splits: dict[str, Split]) -> str:
    content = {
        "format": FORMAT,
        "classes": classes,
        "image": image.model_dump(),
        "splits": {name: split.model_dump() for name, split in splits.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _commit(place: DatasetPlace, index: DatasetIndex) -> str | None:
    """Make this the dataset. Returns None if it was already, else the content hash it had before ("" if none)."""
    while True:
        try:
            current = place.store.get(place.index_key)
            before = _content_of(current.data)
            if before == index.content_sha256:
                return None
            place.store.replace(place.index_key, index.to_bytes(), current.version)
            return before
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


def _summary(place: DatasetPlace, index: DatasetIndex, uploaded: int, replaced: str | None) -> dict[str, Any]:
    shards = [shard for split in index.splits.values() for shard in split.shards]
    return {
        "dataset": index.name,
        "uri": dataset_uri(place.store, index.name),
        "content_sha256": index.content_sha256,
        "classes": index.classes,
        "image": index.image.model_dump(),
        "splits": {name: len(split.samples) for name, split in index.splits.items()},
        "shards": len(shards),
        "bytes": sum(shard.size for shard in shards),
        "uploaded_shards": uploaded,
        "already_prepared": replaced is None,
        "replaced": replaced or None,
        "unreadable": [entry.model_dump() for entry in index.unreadable],
        "ignored": index.ignored,
    }
