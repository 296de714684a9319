"""What a prepared dataset is: `data/<name>/index.json` and the shards it names.

Shards are plain tar files (`tar xf` gives the images back) whose names hold their own hash, so preparing other
content under the same name never changes a shard that somebody is reading. The index is written last: a dataset
exists once its index does.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectNotFound, UsageError
from starling.infra.records import Record
from starling.infra.store import Store, object_uri, open_store

FORMAT: Literal[1] = 1
"""Version of the index's own layout."""

INDEX = "index.json"

# The cache names files after it, so it must not be able to name anything else.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Sample(NamedTuple):
    """Where one image lies."""

    shard: int
    offset: int
    """Of the image's first byte in the shard."""
    length: int
    label: int
    """Position in `DatasetIndex.classes`."""
    crc32: int
    """Of the image's bytes as stored (zlib)."""
    key: str
    """Path of the image in the source; for people."""


class Shard(Record):
    key: str
    """Relative to the dataset's folder."""
    size: int
    sha256: Sha256


class Split(Record):
    samples: list[Sample]
    shards: list[Shard]


class ImageFormat(Record):
    """What the images decode to."""

    mode: Literal["L", "RGB"]
    height: int | None
    """Pixels; None (as the width then is) if the images differ in size."""
    width: int | None

    @property
    def channels(self) -> int:
        return 1 if self.mode == "L" else 3


class Unreadable(Record):
    key: str
    reason: str


class DatasetIndex(Record):
    """Everything about a prepared dataset except the images."""

    format: Literal[1] = FORMAT
    name: str
    source: str
    """What it was prepared from; informative only."""
    content_sha256: Sha256
    """Over classes, image format, samples and shards: equal if and only if the training data is."""
    classes: list[str]
    image: ImageFormat
    splits: dict[str, Split]
    unreadable: list[Unreadable]
    """Images that were left out."""
    ignored: dict[str, int]
    """What else lay in the source: kind -> count."""

    def to_bytes(self) -> bytes:
        """Without indentation: an index has a row for every image."""
        return self.model_dump_json().encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetPlace:
    """A dataset's folder: a store, and the prefix of all its keys."""

    store: Store
    prefix: str

    @property
    def index_key(self) -> str:
        return self.prefix + INDEX

    def shard_key(self, shard: Shard) -> str:
        return self.prefix + shard.key


def locate(store: Store, dataset: str) -> DatasetPlace:
    """Find a dataset by its name in `store`, or by the full URI of its folder (`s3://bucket/mine/data/digits`)."""
    if is_uri(dataset):
        return DatasetPlace(store=open_store(dataset), prefix="")
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


def is_uri(dataset: str) -> bool:
    return "://" in dataset or dataset.startswith("/")


def dataset_uri(store: Store, name: str) -> str:
    """The URI under which any store finds this dataset."""
    return object_uri(store.uri, layout.dataset(name).rstrip("/"))


def prepare_command(store: Store, dataset: str) -> str:
    """The command that would prepare this dataset; the source is for the user to fill in unless it is obvious."""
    uri, name = store.uri, dataset
    if is_uri(dataset):
        path, mark, query = dataset.partition("?")
        folder, _, name = path.rstrip("/").rpartition("/")
        uri = folder.removesuffix("/data") + mark + query
    source = "digits" if name == "digits" else "FOLDER_OF_IMAGES"
    return shlex.join(["starling", "data", "prepare", name, "--from", source, "--store", uri])


def _missing(store: Store, dataset: str) -> str:
    where = f"at {dataset}" if is_uri(dataset) else f"called {dataset} in the store {store.uri}"
    return f"there is no dataset {where}; prepare it with: {prepare_command(store, dataset)}"
