"""Packs a split's images into shards, one after the other, and remembers each finished one until the index is there.

A shard takes images in the plan's order until the next one would make it too large, so what is in it depends on
nothing but the plan. The record of a finished shard, `parts/<plan>/<split>-<number>.json`, says how far in the
plan it reaches: a preparation that was killed goes on behind the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from isal.isal_zlib import crc32

from starling.infra.errors import ObjectCorrupt, ObjectNotFound
from starling.infra.records import Record
from starling.infra.store.oserrors import os_errors_named
from starling.trainer.data.decode import Inspected
from starling.trainer.data.index import DatasetPlace, LeftOut, Sample, Shard, Split, Why
from starling.trainer.data.plan import Plan
from starling.trainer.data.preparing_progress import Pace
from starling.trainer.data.rendering import Outcome, Renderer
from starling.trainer.data.rendition import Rendered
from starling.trainer.data.shard import ShardWriter
from starling.trainer.data.shard_folder import shard_folder
from starling.trainer.data.sources.found import FoundImage

UPLOADS_AT_ONCE = 2
"""Shards on the way to the store while the next one is filled; each is a file in the temporary folder."""

PARTS = "parts/"


class Part(Record):
    """One finished shard."""

    stop: int
    """Position in the split's plan behind the last image that this shard, or an earlier one, has dealt with."""
    shard: Shard
    samples: list[Sample]
    left_out: list[LeftOut]
    kinds: list[tuple[bool, int, int]]
    """Different (grey, height, width) among the images."""
    whole_images: int


@dataclass
class Packing:
    """The shards of all splits, under way."""

    place: DatasetPlace
    plan: Plan
    renderer: Renderer
    pace: Pace
    again: bool
    """Trust nothing that is there: pack and upload every shard."""
    uploaded: int = 0
    resumed: int = 0
    """Shards that an earlier preparation had finished."""
    _parts: dict[str, list[Part]] = field(default_factory=dict)
    _unpacked: list[LeftOut] = field(default_factory=list)
    """Images of splits in which not one can be used."""

    def run(self) -> dict[str, Split]:
        """All splits. Raises the store's errors; shards that were finished until then are found next time."""
        for name in self.plan.splits:
            self._parts[name] = [] if self.again else list(self._finished(name))
            self.resumed += len(self._parts[name])
        done = sum(parts[-1].stop for parts in self._parts.values() if parts)
        if done:
            self.pace.skip(done, f"goes on behind {self.resumed} shards ({done} images) that are finished already")
        with shard_folder() as folder:
            for name in self.plan.splits:
                self._pack(name, folder)
        return {name: _split(parts) for name, parts in self._parts.items()}

    @property
    def parts(self) -> list[Part]:
        return [part for name in self.plan.splits for part in self._parts[name]]

    @property
    def left_out(self) -> list[LeftOut]:
        return [entry for part in self.parts for entry in part.left_out] + self._unpacked

    def forget(self) -> None:
        """Remove the records of parts, of this plan and of all earlier ones: the index says everything now."""
        for info in list(self.place.store.list(self.place.prefix + PARTS)):
            self.place.store.delete(info.key)

    def _key(self, split: str, number: int) -> str:
        return f"{self.place.prefix}{PARTS}{self.plan.inputs_sha256[:16]}/{split}-{number:05}.json"

    def _finished(self, split: str) -> Iterator[Part]:
        for number in range(len(self.plan.splits[split])):
            try:
                part = Part.from_bytes(self.place.store.get(self._key(split, number)).data)
            except (ObjectNotFound, ObjectCorrupt):
                return
            left_out = {entry.key for entry in part.left_out}
            images = [image for image in self.plan.splits[split] if image.key in left_out] if left_out else []
            if not self.place.holds(part.shard) or self.renderer.first_usable(images):
                return
            yield part

    def _pack(self, split: str, folder: Path) -> None:
        """Fill shards from where the finished ones end. Uploads go on meanwhile, a few at a time."""
        parts = self._parts[split]
        start = parts[-1].stop if parts else 0
        waiting: deque[Future[Part]] = deque()
        with ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="prepare-upload") as pool:
            images = self.plan.splits[split][start:]
            filling = _Filling(self.plan, self.renderer.outcomes(images), start, self.pace)
            while filling.more():
                number = len(parts) + len(waiting)
                path = folder / f"{split}-{number:05}.tar"
                waiting.append(pool.submit(self._store(split, number, path, filling.fill(path, number))))
                while len(waiting) > UPLOADS_AT_ONCE:
                    parts.append(waiting.popleft().result())
            parts += [future.result() for future in waiting]
            self._unpacked += filling.left_out

    def _store(self, split: str, number: int, path: Path, filled: _Filled) -> Callable[[], Part]:
        def store() -> Part:
            stem = f"{split}/shard-{number:05}"
            shard = Shard(key=f"{stem}-{filled.sha256[:16]}.tar", size=filled.size, sha256=filled.sha256)
            part = filled.part(shard)
            if self.again or not self.place.holds(shard):
                self.place.store.upload(path, self.place.shard_key(shard))
                self.uploaded += 1
            path.unlink()
            self.place.store.put(self._key(split, number), part.to_bytes())
            return part

        return store


@dataclass
class _Filled:
    """A shard's content, before it has a place in the store."""

    stop: int
    samples: list[Sample] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    kinds: set[Inspected] = field(default_factory=set)
    whole_images: int = 0
    size: int = 0
    sha256: str = ""

    def part(self, shard: Shard) -> Part:
        kinds = sorted((kind.grey, kind.height, kind.width) for kind in self.kinds)
        return Part(
            stop=self.stop,
            shard=shard,
            samples=self.samples,
            left_out=self.left_out,
            kinds=kinds,
            whole_images=self.whole_images,
        )


class _Filling:
    """Takes rendered images one by one; the one that did not fit begins the next shard."""

    def __init__(self, plan: Plan, outcomes: Iterator[tuple[FoundImage, Outcome]], start: int, pace: Pace) -> None:
        self._labels = {name: label for label, name in enumerate(plan.classes)}
        self._patients = plan.patients
        self._limit = plan.prepared.shard_bytes
        self._outcomes = outcomes
        self._position = start
        self._pace = pace
        self._next: tuple[FoundImage, Rendered] | None = None
        self.left_out: list[LeftOut] = []
        """Since the last shard was full; in the end only if there was no image for a shard at all."""
        self._advance()

    def more(self) -> bool:
        return self._next is not None

    def fill(self, path: Path, number: int) -> _Filled:
        """Write the next shard. What is left out behind its last image counts to it."""
        filled = _Filled(stop=0, left_out=self.left_out)
        with os_errors_named("write", path), ShardWriter(path) as shard:
            while self._next is not None:
                image, rendered = self._next
                name = image.key + rendered.suffix
                if filled.samples and shard.size_with(name, rendered.data) > self._limit:
                    break
                offset = shard.add(name, rendered.data)
                label, checksum = self._labels[image.class_name], crc32(rendered.data)
                patient = self._patients[image.key]
                filled.samples.append(Sample(number, offset, len(rendered.data), label, checksum, patient, image.key))
                filled.kinds.add(rendered.kind)
                filled.whole_images += rendered.whole
                self._advance()
            filled.sha256, filled.size = shard.finish(), shard.size
        filled.stop = self._position - (self._next is not None)
        self.left_out = []
        return filled

    def _advance(self) -> None:
        """To the next image that can be used."""
        self._next = None
        for image, outcome in self._outcomes:
            self._position += 1
            self._pace.count()
            if isinstance(outcome, Rendered):
                self._next = image, outcome
                return
            self.left_out.append(LeftOut(key=image.key, why=Why.UNREADABLE, reason=outcome))
            self._pace.tell(f"left out {image.key}: {outcome}")


def _split(parts: list[Part]) -> Split:
    return Split(samples=[sample for part in parts for sample in part.samples], shards=[part.shard for part in parts])
