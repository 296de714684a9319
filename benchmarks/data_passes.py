"""Which reader reads what, when: rounds in which every reader has its turn at everything it can do."""

from __future__ import annotations

import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from benchmarks.data_peers.turn import Job, Outcome
from benchmarks.data_places import TARS, Place
from benchmarks.data_turns import ReaderFailed, ReaderProcess
from benchmarks.slow_proxy import Counts, SlowProxy
from starling.infra.region.s3_server import S3Server

RAW_BOTO3, RAW_STORE, RAW_KEPT = "raw-boto3", "raw-store", "raw-kept"
OURS, LOCAL = "starling", "local-files"
BATCH = 32


class Pass(StrEnum):
    """How an epoch is read."""

    COLD = "cold"
    """Straight from the server; nothing is on the disk."""
    WARM = "warm"
    """Once more, in a new reader, over what is now on the disk."""
    NEAR = "near"
    """Cold, through a proxy that adds nothing: what the next one is compared with."""
    FAR = "far"
    """Cold, through a proxy that adds 30 ms."""
    PIXELS_COLD = "pixels-cold"
    PIXELS_WARM = "pixels-warm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One reader."""

    label: str
    keeps: bool = False
    """It has a cache on the disk."""
    decodes: bool = True
    """It takes part where pixels are asked for."""
    resumes: bool = False
    """It can begin in the middle of an epoch."""
    remote: bool = True
    far_share: float = 1.0
    """Of the images, where every request takes 30 ms more: enough to know, without waiting for minutes."""
    peer: bool = True
    raw: bool = False
    """It reads the bytes of shards, and knows nothing of images."""


KINDS = {
    RAW_BOTO3: Kind(label="ranged GETs of 8 MiB, boto3", decodes=False, peer=False, raw=True),
    RAW_STORE: Kind(label="ranged GETs of 8 MiB, our store", decodes=False, peer=False, raw=True),
    RAW_KEPT: Kind(label="the same, written to files", decodes=False, peer=False, raw=True),
    OURS: Kind(label="**Starling**", keeps=True, resumes=True, peer=False),
    "streaming": Kind(label="mosaicml-streaming", keeps=True, resumes=True),
    "litdata": Kind(label="litdata", keeps=True, resumes=True),
    "webdataset": Kind(label="webdataset, curl"),
    "boto3": Kind(label="one object a sample, boto3 threads", resumes=True, far_share=0.4),
    "s3fs": Kind(label="one object a sample, s3fs", decodes=False, resumes=True, far_share=0.1),
    LOCAL: Kind(label="local files", remote=False, peer=False),
}
"""In the order of the tables, which is also that of the turns."""


@dataclass(kw_only=True, slots=True)
class Costs:
    """What one pass that was not timed took from the machine and the server."""

    counts: Counts
    memory: int
    """Bytes that the reader and its workers took at most, above what it took when idle."""


@dataclass(kw_only=True, slots=True)
class Measured:
    """All turns of all readers."""

    timed: dict[str, dict[Pass, list[Outcome]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    whole: dict[str, Costs] = field(default_factory=dict)
    """By reader: of a cold epoch."""
    half: dict[str, Counts] = field(default_factory=dict)
    """By reader: beginning in the middle of an epoch, with nothing on the disk."""
    failed: dict[str, str] = field(default_factory=dict)
    """By reader, why it takes no (further) part."""


@dataclass(kw_only=True)
class Field:
    """Where the readers run, and what came out so far."""

    server: S3Server
    near: SlowProxy
    far: SlowProxy
    place: Place
    folder: Path
    no_peers: str = ""
    """Why there are none."""
    found: Measured = field(default_factory=Measured)
    readers: dict[str, ReaderProcess] = field(default_factory=dict)

    def start(self, python: Path | None) -> None:
        """Start the readers, peers with their own Python if there is one."""
        for name, kind in KINDS.items():
            if kind.peer and (python is None or name in self.place.failed):
                self.found.failed[name] = self.place.failed.get(name, self.no_peers)
                continue
            module = (
                [str(python), "-m", "benchmarks.data_peers"]
                if kind.peer
                else [sys.executable, "-m", "benchmarks.data_ours"]
            )
            try:
                self.readers[name] = ReaderProcess(
                    name, [*module, name], self._environment(), self.folder / f"{name}.log"
                )
            except ReaderFailed as error:
                self._drop(name, error)

    def count(self) -> None:
        """One epoch each, verified, with a look at its memory and its traffic; then half a one."""
        middle = self.place.images // 2 // BATCH * BATCH
        for name, kind in self._able(KINDS):
            self._clear(name)
            self.near.counts()
            try:
                outcome, memory = self.readers[name].turn_with_memory(self._job(name, self.near, verify=True))
                _check(outcome, self.place, raw=kind.raw)
                self.found.whole[name] = Costs(counts=self.near.counts(), memory=memory)
                if kind.resumes:
                    self._clear(name)
                    outcome = self.readers[name].turn(self._job(name, self.near, start=middle))
                    _check_count(outcome, self.place.images - middle)
                    self.found.half[name] = self.near.counts()
            except ReaderFailed as error:
                self._drop(name, error)

    def round(self, passes: Iterable[Pass]) -> None:
        """Everybody's turn at each of the passes that make sense for it."""
        wanted = list(passes)
        for name, kind in self._able(KINDS):
            for one in wanted:
                if _makes_sense(one, kind) and name in self.readers:
                    self._timed(name, kind, one)

    def _timed(self, name: str, kind: Kind, one: Pass) -> None:
        if one not in (Pass.WARM, Pass.PIXELS_WARM):
            self._clear(name)
        through: SlowProxy | S3Server = {Pass.NEAR: self.near, Pass.FAR: self.far}.get(one, self.server)
        far = one in (Pass.NEAR, Pass.FAR) and kind.far_share < 1
        job = self._job(
            name,
            through,
            decode=one in (Pass.PIXELS_COLD, Pass.PIXELS_WARM),
            limit=math.ceil(self.place.images * kind.far_share) if far else None,
        )
        try:
            outcome = self.readers[name].turn(job)
            if not kind.raw:
                _check_count(outcome, job.limit or self.place.images)
            self.found.timed[name][one].append(outcome)
        except ReaderFailed as error:
            self._drop(name, error)

    def _job(
        self,
        name: str,
        through: SlowProxy | S3Server,
        *,
        start: int = 0,
        limit: int | None = None,
        decode: bool = False,
        verify: bool = False,
    ) -> Job:
        return Job(
            endpoint=through.endpoint_url,
            bucket=self.place.bucket,
            count=self.place.images,
            tars=TARS,
            cache=str(self._cache(name)),
            folder=str(self.place.folder),
            dataset=self.place.dataset,
            start=start,
            limit=limit,
            batch=BATCH,
            decode=decode,
            verify=verify,
        )

    def _able(self, kinds: dict[str, Kind]) -> list[tuple[str, Kind]]:
        return [(name, kind) for name, kind in kinds.items() if name in self.readers]

    def _drop(self, name: str, error: ReaderFailed) -> None:
        """A peer that fails is a result, and the others go on; without our own readers there is none."""
        if not KINDS[name].peer:
            raise error
        print(f"{error}; it takes no further part", file=sys.stderr)
        self.found.failed[name] = str(error)
        self.found.timed.pop(name, None)
        self.found.whole.pop(name, None)
        self.found.half.pop(name, None)
        if reader := self.readers.pop(name, None):
            reader.close()

    def _cache(self, name: str) -> Path:
        return self.folder / "caches" / name

    def _clear(self, name: str) -> None:
        shutil.rmtree(self._cache(name), ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        # Nobody looks at, or leaves anything in, the user's own files.
        home = {"HOME": str(self.folder), "TMPDIR": str(self.folder)}
        return {**self.server.environment, **home, "AWS_DEFAULT_REGION": "us-east-1"}


def _makes_sense(one: Pass, kind: Kind) -> bool:
    match one:
        case Pass.WARM:
            return kind.keeps
        case Pass.NEAR | Pass.FAR:
            return kind.remote
        case Pass.PIXELS_COLD:
            return kind.decodes
        case Pass.PIXELS_WARM:
            return kind.decodes and kind.keeps
        case _:
            return True


def _check(outcome: Outcome, place: Place, *, raw: bool) -> None:
    """Speed at which wrong bytes are read is of no interest."""
    if raw:
        if outcome.bytes != place.dataset_bytes:
            raise ReaderFailed(f"{outcome.bytes} bytes were read of shards of {place.dataset_bytes}")
        return
    _check_count(outcome, place.images)
    if (outcome.bytes, outcome.checksum) != (place.bytes, place.checksum):
        raise ReaderFailed("it read other bytes than were written")


def _check_count(outcome: Outcome, images: int) -> None:
    if outcome.images != images:
        raise ReaderFailed(f"it read {outcome.images} images instead of {images}")
