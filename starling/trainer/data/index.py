"""What a prepared dataset is: a folder with `index.json` and the shards it names.

Shards are plain tar files (`tar xf` gives the images back) whose names hold their own hash, so preparing other
content under the same name never changes a shard that somebody is reading. Within a split the samples lie in the
order of a hash of their keys: every shard is a random sample of its split. The index is written last: a dataset
exists once its index does. docs/data.md describes the format.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectNotFound, UsageError
from starling.infra.records import Record
from starling.infra.store import Store, object_uri
from starling.infra.store.anywhere import Storage, open_storage
from starling.infra.store.keys import is_key

FORMAT: Literal[3] = 3
"""Version of the index's own layout."""

INDEX = "index.json"

# The cache names files after it, so it must not be able to name anything else.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Natural = Annotated[int, Field(ge=0, lt=2**63)]


def _within(key: str) -> str:
    if not is_key(key):
        raise ValueError(f"{key!r} does not lie in the dataset's folder")
    return key


class Sample(NamedTuple):
    """Where one image lies."""

    shard: Natural
    offset: Natural
    """Of the image's first byte in the shard."""
    length: Natural
    label: Natural
    """Position in `DatasetIndex.classes`."""
    crc32: Natural
    """Of the image's bytes as stored (zlib)."""
    patient: Natural
    """Equal for all images of one patient, in whatever split; a number of its own where nothing tells patients."""
    key: str
    """Path of the image in the source; for people."""


class Shard(Record):
    key: Annotated[str, AfterValidator(_within)]
    """Relative to the dataset's folder."""
    size: Natural
    sha256: Sha256


class Split(Record):
    samples: list[Sample]
    shards: list[Shard]

    @model_validator(mode="after")
    def _samples_lie_in_shards(self) -> Self:
        sizes = [shard.size for shard in self.shards]
        for sample in self.samples:
            if sample.shard >= len(sizes) or sample.offset + sample.length > sizes[sample.shard]:
                raise ValueError(f"{sample.key} does not lie within shard {sample.shard}")
        return self


class ImageFormat(Record):
    """What the images decode to."""

    mode: Literal["L", "RGB"]
    height: int | None
    """Pixels; None (as the width then is) if the images differ in size."""
    width: int | None

    @property
    def channels(self) -> int:
        return 1 if self.mode == "L" else 3


class Why(StrEnum):
    """Why something that the source names is no sample."""

    UNREADABLE = "unreadable"
    """The image cannot be read or decoded."""
    MISSING = "missing"
    """The table of labels names it, and it is not there."""
    UNLABELLED = "unlabelled"
    """The image is there, and the table has no label for it."""
    DUPLICATE = "duplicate"
    """A row of the table that says again what another one said."""


class LeftOut(Record):
    key: str
    why: Why
    reason: str
    """For people."""


class PreparedWith(Record):
    """What decides a dataset's content besides its source."""

    layout: str
    """How the source was read: "class folders", "split folders", what is built in, or which CSV and columns."""
    size: int | None = None
    """Side of the square images, pixels; None: they kept their sizes."""
    crop_retina: bool = False
    quality: int | None = None
    """Of the JPEG compression; None: no image was compressed anew as JPEG."""
    lossless: bool = False
    """Images that were compressed anew are PNG."""
    shard_bytes: int
    """No shard is larger, unless one image alone is."""
    split_by: Literal["hash", "column", "folders"]
    split_fraction: float | None = None
    """Part of each class (or of the patients) that validates; None: not split here."""
    patient_wise: bool = False
    """Something tells patients apart, and none of them has images in two splits."""


class DatasetIndex(Record):
    """Everything about a prepared dataset except the images."""

    format: Literal[3] = FORMAT
    name: str
    source: str
    """What it was prepared from; informative only."""
    inputs_sha256: Sha256
    """Over what was listed at the source (names, sizes, times of change or etags, labels) and `prepared`: tells without
    reading an image that preparing again would change nothing."""
    content_sha256: Sha256
    """Over classes, image format, samples and shards, not over patients: equal if and only if the training data is."""
    classes: list[str]
    """In the order of the labels: numerically if all are numbers, else by name."""
    image: ImageFormat
    splits: dict[str, Split]
    prepared: PreparedWith
    left_out: list[LeftOut]
    """Everything that was named or found and is no sample, with reasons."""
    left_out_counts: dict[str, int]
    """Why -> how many, of `left_out`."""
    whole_images: int
    """Images in which the retina crop found no disc, and left as they were; 0 without it."""
    ignored: dict[str, int]
    """What else lay in the source: kind -> count."""

    @model_validator(mode="after")
    def _labels_are_classes(self) -> Self:
        if "train" not in self.splits:
            raise ValueError("it has no split to train on")
        for split in self.splits.values():
            if wrong := [sample for sample in split.samples if sample.label >= len(self.classes)]:
                raise ValueError(
                    f"{wrong[0].key} has label {wrong[0].label}, but there are {len(self.classes)} classes"
                )
        return self

    def class_counts(self, split: str) -> list[int]:
        """Samples of each class in a split."""
        counts = [0] * len(self.classes)
        for sample in self.splits[split].samples:
            counts[sample.label] += 1
        return counts

    def to_bytes(self) -> bytes:
        """Without indentation: an index has a row for every image."""
        return self.model_dump_json().encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetPlace:
    """A dataset's folder: a store (or another place that fsspec knows), and the prefix of all its keys."""

    store: Storage
    prefix: str

    @property
    def uri(self) -> str:
        """Under which this dataset is found from anywhere."""
        return object_uri(self.store.uri, self.prefix.rstrip("/")) if self.prefix else self.store.uri

    @property
    def index_key(self) -> str:
        return self.prefix + INDEX

    def shard_key(self, shard: Shard) -> str:
        return self.prefix + shard.key

    def holds(self, shard: Shard) -> bool:
        """Whether this shard is there, in its full size; its key tells its content."""
        try:
            return self.store.stat(self.shard_key(shard)).size == shard.size
        except ObjectNotFound:
            return False

    def read_shard(self, shard: Shard, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length) of a shard; shorter only at its end. Raises the store's errors."""
        return self.store.read_range(self.shard_key(shard), offset, length)


def locate(store: Store, dataset: str) -> DatasetPlace:
    """Find a dataset by its name in `store`, or by the full URI of its folder (`s3://bucket/mine/data/digits`).

    Any URI that fsspec knows will do. Raises UsageError for one that cannot be opened.
    """
    if is_uri(dataset):
        return DatasetPlace(store=open_storage(dataset), prefix="")
    return DatasetPlace(store=store, prefix=layout.dataset(check_name(dataset)))


def load_index(store: Store, dataset: str) -> DatasetIndex:
    """Read a dataset's index. UsageError says how to prepare it if it is missing; ObjectCorrupt if it is no index."""
    place = locate(store, dataset)
    try:
        data = place.store.get(place.index_key).data
    except ObjectNotFound:
        raise UsageError(_missing(store, dataset)) from None
    try:
        return DatasetIndex.from_bytes(data)
    except ObjectCorrupt as error:
        raise ObjectCorrupt(
            f"{place.index_key} in {place.store.uri} is not a dataset index of format {FORMAT}: {error}"
            f"\nPrepare the dataset again with: {prepare_command(store, dataset)}"
        ) from error


def check_name(name: str) -> str:
    """The name itself if it can be part of a key, else UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,99}", name):
        raise UsageError(
            f"{name!r} cannot be the name of a dataset: use up to 100 letters, digits and any of . _ = -, "
            "beginning with a letter or digit"
        )
    return name


def name_of(dataset: str) -> str:
    """The name of a dataset given by name or by URI. UsageError if it cannot be one."""
    return check_name(dataset.partition("?")[0].rstrip("/").rpartition("/")[2] if is_uri(dataset) else dataset)


def is_uri(dataset: str) -> bool:
    """Whether this is a dataset's own URI or absolute path rather than a name in a store."""
    return "://" in dataset or dataset.startswith("/")


def dataset_uri(store: Store, name: str) -> str:
    """The URI under which any store finds this dataset."""
    return object_uri(store.uri, layout.dataset(name).rstrip("/"))


def prepare_command(store: Store, dataset: str) -> str:
    """The command that would prepare this dataset; the source is for the user to fill in unless it is obvious."""
    if is_uri(dataset):
        source = "digits" if dataset.rstrip("/").endswith("/digits") else "FOLDER_OF_IMAGES"
        return shlex.join(["starling", "data", "prepare", source, dataset])
    source = "digits" if dataset == "digits" else "FOLDER_OF_IMAGES"
    return shlex.join(["starling", "data", "prepare", source, dataset, "--store", store.uri])


def _missing(store: Store, dataset: str) -> str:
    where = f"at {dataset}" if is_uri(dataset) else f"called {dataset} in the store {store.uri}"
    return f"there is no dataset {where}; prepare it with: {prepare_command(store, dataset)}"
