from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from starling.infra.errors import ObjectCorrupt, UsageError
from starling.infra.store import Store, open_store
from starling.trainer.data.index import DatasetIndex, Sample, Shard, dataset_uri, load_index, locate, prepare_command
from starling.trainer.data.prepare import prepare


def test_a_missing_dataset_comes_with_the_command_that_prepares_it(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        load_index(store, "pets")
    assert f"starling data prepare FOLDER_OF_IMAGES pets --store {store.uri}" in str(caught.value)


def test_the_command_knows_where_digits_come_from(store: Store) -> None:
    assert prepare_command(store, "digits") == f"starling data prepare digits digits --store {store.uri}"


def test_the_command_for_a_uri_prepares_it_there(store: Store) -> None:
    command = prepare_command(store, "s3://bucket/mine/data/pets?region=eu-west-1")
    assert command == "starling data prepare FOLDER_OF_IMAGES 's3://bucket/mine/data/pets?region=eu-west-1'"


def test_a_dataset_is_found_by_its_uri_from_any_store(store: Store, images: Path, tmp_path: Path) -> None:
    prepared = prepare(str(images), store, "pets")
    (tmp_path / "other").mkdir()
    other = open_store(str(tmp_path / "other"))
    assert load_index(other, prepared["uri"]) == load_index(store, "pets")
    place = locate(other, prepared["uri"])
    shard = load_index(store, "pets").splits["train"].shards[0]
    assert place.store.stat(place.shard_key(shard)).size == shard.size


def test_a_uri_keeps_its_options() -> None:
    class S3:
        uri = "s3://bucket/mine?region=eu-west-1"

    assert dataset_uri(S3(), "pets") == "s3://bucket/mine/data/pets?region=eu-west-1"  # type: ignore[arg-type]


def test_a_missing_dataset_folder_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no dataset at .*/data/nothing; prepare it with: starling data"):
        load_index(store, str(tmp_path / "data" / "nothing"))


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", pickle.dumps(Explosive())])
def test_what_is_no_index_is_refused(
    store: Store, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store.put("data/pets/index.json", data)
    with pytest.raises(ObjectCorrupt, match=r"not a dataset index of format 3(.|\n)*Prepare the dataset again with"):
        load_index(store, "pets")
    assert not (tmp_path / "exploded").exists()


def test_another_format_is_refused(store: Store, images: Path) -> None:
    prepare(str(images), store, "pets")
    index = json.loads(store.get("data/pets/index.json").data)
    store.put("data/pets/index.json", json.dumps(index | {"format": 2}).encode())
    with pytest.raises(ObjectCorrupt, match="format 3"):
        load_index(store, "pets")


def test_an_index_survives_being_written_and_read(store: Store, images: Path) -> None:
    prepare(str(images), store, "pets")
    index = load_index(store, "pets")
    assert DatasetIndex.from_bytes(index.to_bytes()) == index


def test_a_hash_cannot_name_a_file_elsewhere() -> None:
    with pytest.raises(ValidationError):
        Shard(key="a", size=1, sha256="../../somewhere")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shard", 9),
        ("shard", -1),
        ("offset", -1),
        ("offset", 10**15),
        ("length", 10**15),
        ("label", 9),
        ("label", -1),
        ("patient", -1),
    ],
)
def test_an_index_whose_samples_cannot_be_is_refused(store: Store, images: Path, field: str, value: int) -> None:
    prepare(str(images), store, "pets")
    index = json.loads(store.get("data/pets/index.json").data)
    index["splits"]["train"]["samples"][0][Sample._fields.index(field)] = value
    store.put("data/pets/index.json", json.dumps(index).encode())
    with pytest.raises(ObjectCorrupt, match="is not a dataset index of format 3"):
        load_index(store, "pets")


@pytest.mark.parametrize(
    ("field", "value"), [("key", "../../secret"), ("key", "/etc/passwd"), ("size", -1), ("size", 2**70)]
)
def test_an_index_whose_shards_cannot_be_is_refused(store: Store, images: Path, field: str, value: object) -> None:
    prepare(str(images), store, "pets")
    index = json.loads(store.get("data/pets/index.json").data)
    index["splits"]["train"]["shards"][0][field] = value
    store.put("data/pets/index.json", json.dumps(index).encode())
    with pytest.raises(ObjectCorrupt, match="is not a dataset index of format 3"):
        load_index(store, "pets")
