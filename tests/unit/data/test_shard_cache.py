from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from starling.infra.errors import ObjectCorrupt
from starling.infra.store import Store
from starling.trainer.data.cache import fetch_shard, fetch_shards, refetch_shard
from starling.trainer.data.index import DatasetPlace, Shard, load_index, locate
from starling.trainer.data.prepare import prepare


@pytest.fixture
def place(store: Store, images: Path) -> DatasetPlace:
    prepare(str(images), store, "pets", shard_bytes=4096)
    return locate(store, "pets")


@pytest.fixture
def shards(place: DatasetPlace) -> list[Shard]:
    return load_index(place.store, "pets").splits["train"].shards


def original(place: DatasetPlace, shard: Shard) -> bytes:
    return place.store.get(place.shard_key(shard)).data


def test_a_shard_is_downloaded_once(place: DatasetPlace, shards: list[Shard], tmp_path: Path) -> None:
    content = original(place, shards[0])
    first = fetch_shard(place, shards[0], tmp_path / "cache")
    place.store.delete(place.shard_key(shards[0]))
    assert fetch_shard(place, shards[0], tmp_path / "cache") == first
    assert first.read_bytes() == content


def test_all_shards_come_in_order(place: DatasetPlace, shards: list[Shard], tmp_path: Path) -> None:
    paths = fetch_shards(place, shards, tmp_path / "cache")
    assert [path.read_bytes() for path in paths] == [original(place, shard) for shard in shards]


def test_a_cut_copy_is_fetched_again(place: DatasetPlace, shards: list[Shard], tmp_path: Path) -> None:
    path = fetch_shard(place, shards[0], tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:-1])
    assert fetch_shard(place, shards[0], tmp_path / "cache").read_bytes() == original(place, shards[0])


def test_a_damaged_copy_is_fetched_again_on_request(place: DatasetPlace, shards: list[Shard], tmp_path: Path) -> None:
    path = fetch_shard(place, shards[0], tmp_path / "cache")
    path.write_bytes(bytes(shards[0].size))
    assert refetch_shard(place, shards[0], tmp_path / "cache").read_bytes() == original(place, shards[0])


def test_a_copy_that_somebody_else_has_mended_is_kept(place: DatasetPlace, shards: list[Shard], tmp_path: Path) -> None:
    fetch_shard(place, shards[0], tmp_path / "cache")
    place.store.delete(place.shard_key(shards[0]))
    assert refetch_shard(place, shards[0], tmp_path / "cache").exists()


def test_what_a_killed_download_left_is_cleared_away(place: DatasetPlace, shards: list[Shard], tmp_path: Path) -> None:
    left = tmp_path / "cache" / f"{shards[0].sha256}.part"
    left.mkdir(parents=True)
    (left / "shard.tar.3f2a").write_bytes(b"half")
    path = fetch_shard(place, shards[0], tmp_path / "cache")
    assert path.read_bytes() == original(place, shards[0])
    assert not left.exists()


def test_a_shard_that_is_damaged_in_the_store_never_enters_the_cache(
    place: DatasetPlace, shards: list[Shard], tmp_path: Path
) -> None:
    place.store.put(place.shard_key(shards[0]), bytes(shards[0].size))
    for _ in range(2):
        with pytest.raises(ObjectCorrupt):
            fetch_shard(place, shards[0], tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.tar")) == []


def test_a_failed_download_releases_the_lock(place: DatasetPlace, shards: list[Shard], tmp_path: Path) -> None:
    content = original(place, shards[0])
    place.store.put(place.shard_key(shards[0]), bytes(shards[0].size))
    with pytest.raises(ObjectCorrupt):
        fetch_shard(place, shards[0], tmp_path / "cache")
    with (tmp_path / "cache" / f"{shards[0].sha256}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    place.store.put(place.shard_key(shards[0]), content)
    assert fetch_shard(place, shards[0], tmp_path / "cache").read_bytes() == content
