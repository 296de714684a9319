from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from starling.infra.errors import ObjectCorrupt, UsageError
from starling.infra.store import Store
from starling.trainer.data.downloads import Downloads
from starling.trainer.data.index import DatasetIndex, DatasetPlace, Sample, Shard, Split, load_index, locate
from starling.trainer.data.prepare import prepare
from starling.trainer.data.read import ShardSamples

WriteImage = Callable[..., Path]


def open_samples(store: Store, tmp_path: Path, split: str = "train", **options: Any) -> ShardSamples:
    return ShardSamples(locate(store, "pets"), load_index(store, "pets"), split, tmp_path / "cache", **options)


def read(samples: ShardSamples, indices: list[int]) -> torch.Tensor:
    return samples.batch(indices, seed=0, epoch=None)["image"]


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


HOW_TO_READ: list[dict[str, Any]] = [{}, {"memory_bytes": 0}, {"memory_bytes": 0, "threads": 3}, {"threads": 3}]


@pytest.mark.parametrize("options", HOW_TO_READ)
def test_batches_hold_the_images_and_labels_of_the_index(
    store: Store, images: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    prepare(str(images), store, "pets", shard_bytes=8192)
    index = load_index(store, "pets")
    samples = open_samples(store, tmp_path, **options)
    indices = [15, 0, 3, 3, 9]
    for _ in range(2):
        batch = samples.batch(indices, seed=0, epoch=1)
        wanted = [index.splits["train"].samples[i] for i in indices]
        assert torch.equal(batch["image"], torch.stack([pixels(images / sample.key) for sample in wanted]))
        assert batch["label"].tolist() == [sample.label for sample in wanted]
        assert (batch["image"].dtype, batch["label"].dtype) == (torch.uint8, torch.int64)
        batch["image"].zero_()  # what a caller does to its batch must not reach the next one
    assert len(samples) == 16


def test_images_of_different_sizes_are_scaled(store: Store, write_image: WriteImage, tmp_path: Path) -> None:
    files = [write_image(f"{name}/1.png", height=10 + i, width=12) for i, name in enumerate("ab")]
    prepare(str(tmp_path / "images"), store, "pets")
    with pytest.raises(UsageError, match="differ in size: set image_size"):
        open_samples(store, tmp_path)
    scaled = Image.open(files[1]).resize((8, 4), Image.Resampling.BILINEAR)
    images = read(open_samples(store, tmp_path, image_size=(4, 8)), [0, 1])
    assert images.shape == (2, 3, 4, 8)
    assert torch.equal(images[1], torch.from_numpy(np.array(scaled)).permute(2, 0, 1))


def test_grey_images_among_coloured_ones_get_three_channels(
    store: Store, write_image: WriteImage, tmp_path: Path
) -> None:
    write_image("a/1.png", mode="L")
    write_image("b/1.png")
    prepare(str(tmp_path / "images"), store, "pets")
    grey = read(open_samples(store, tmp_path), [0])[0]
    assert grey.shape == (3, 6, 5)
    assert torch.equal(grey[0], grey[2])


def test_training_gets_draws_for_its_entries_and_evaluation_does_not(
    store: Store, images: Path, tmp_path: Path
) -> None:
    prepare(str(images), store, "pets")
    asked = []

    def draws(entries: Sequence[int], seed: int, epoch: int) -> dict[str, torch.Tensor]:
        asked.append((list(entries), seed, epoch))
        return {"flip": torch.tensor(entries) % 2}

    samples = open_samples(store, tmp_path, draws=draws)
    assert "flip" not in samples.batch([3, 16 + 3], seed=3, epoch=None)
    batch = samples.batch([3, 16 + 3], seed=3, epoch=5)
    assert torch.equal(batch["image"][0], batch["image"][1]), "an entry is a sample and the number of its occurrence"
    assert batch["flip"].tolist() == [1, 1]
    assert asked == [([3, 19], 3, 5)]


def test_a_subset_is_a_split_of_its_own(store: Store, images: Path, tmp_path: Path) -> None:
    prepare(str(images), store, "pets")
    everything = open_samples(store, tmp_path)
    chosen = [11, 2, 7, 0]
    some = open_samples(store, tmp_path, subset=chosen, labels_of={0: 1, 1: 0})
    assert len(some) == 4
    assert torch.equal(read(some, [0, 1, 2, 3, 4 + 1]), read(everything, [*chosen, 2]))
    labels = everything.batch(chosen, seed=0, epoch=None)["label"]
    assert torch.equal(some.batch(range(4), seed=0, epoch=None)["label"], 1 - labels)
    assert [some.key(number) for number in range(4)] == [everything.key(number) for number in chosen]
    assert sorted(some.order(0, 0).tolist()) == [0, 1, 2, 3]


def test_the_order_takes_samples_as_often_as_it_is_told(store: Store, images: Path, tmp_path: Path) -> None:
    prepare(str(images), store, "pets")
    counts = torch.tensor([2, 0] * 8)
    order = open_samples(store, tmp_path, counts=lambda seed, epoch: counts).order(0, 0)
    assert sorted(order.tolist()) == sorted([*range(0, 16, 2), *range(16, 32, 2)])


def test_nothing_is_downloaded_before_it_is_asked_for(store: Store, images: Path, tmp_path: Path) -> None:
    prepare(str(images), store, "pets", shard_bytes=10240)
    samples = open_samples(store, tmp_path)
    assert not list((tmp_path / "cache").glob("shards/*/*"))
    read(samples, [0])
    assert len(list((tmp_path / "cache").glob("shards/*/*"))) == 1
    assert len(load_index(store, "pets").splits["train"].shards) > 1


@pytest.mark.parametrize("memory_bytes", [0, 10**9])
def test_fetching_ahead_is_told_how_far_reading_is_whatever_is_decoded_already(
    store: Store, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    prepare(str(images), store, "pets")
    positions: list[int] = []
    monkeypatch.setattr(Downloads, "reached", lambda self, position: positions.append(position))
    samples = open_samples(store, tmp_path, memory_bytes=memory_bytes)
    samples.expect([3, 3, 3, 4])
    for entries in ([3, 3], [3, 4]):
        read(samples, entries)
    assert positions == [2, 4]


def test_files_can_be_had_as_they_are_stored(store: Store, images: Path, tmp_path: Path) -> None:
    prepare(str(images), store, "pets")
    samples = open_samples(store, tmp_path)
    assert [bytes(data) for data in samples.read_bytes([5, 0, 16])] == [
        (images / samples.key(index)).read_bytes() for index in (5, 0, 0)
    ]


def test_a_missing_split_names_those_there_are(store: Store, images: Path, tmp_path: Path) -> None:
    prepare(str(images), store, "pets")
    with pytest.raises(UsageError, match="no split 'test'; it has train, val"):
        open_samples(store, tmp_path, "test")


def damage_first_image(tmp_path: Path, index: DatasetIndex) -> None:
    split = index.splits["train"]
    (path,) = (tmp_path / "cache" / "shards" / split.shards[split.samples[0].shard].sha256).iterdir()
    data = bytearray(path.read_bytes())
    data[split.samples[0].offset - int(path.name.partition("-")[0]) + 40] ^= 1
    path.write_bytes(data)


def test_a_damaged_cached_shard_is_fetched_again(store: Store, images: Path, tmp_path: Path) -> None:
    prepare(str(images), store, "pets")
    expected = read(open_samples(store, tmp_path), [0])
    damage_first_image(tmp_path, load_index(store, "pets"))
    assert torch.equal(read(open_samples(store, tmp_path), [0]), expected)


def test_a_sample_that_never_matches_its_index_is_an_error(store: Store, images: Path, tmp_path: Path) -> None:
    prepare(str(images), store, "pets")
    index = load_index(store, "pets")
    split = index.splits["train"]
    wrong = split.but(samples=[split.samples[0]._replace(crc32=1), *split.samples[1:]])
    samples = ShardSamples(
        locate(store, "pets"), index.but(splits={"train": wrong}), "train", tmp_path / "cache", memory_bytes=0
    )
    assert read(samples, [1]).shape == (1, 3, 6, 5)
    with pytest.raises(ObjectCorrupt, match=r"/0.\.png in data/pets/train/.* does not match"):
        read(samples, [0])


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("exploded"),)


def bitmap() -> bytes:
    """An image that Pillow could read, of a format that no dataset may hold."""
    buffer = io.BytesIO()
    Image.new("RGB", (5, 6)).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.mark.parametrize("payload", [bitmap(), pickle.dumps(Explosive()), b"%!PS-Adobe-3.0 EPSF-3.0\n", b""])
def test_bytes_that_are_no_image_are_refused_and_nothing_in_them_is_run(
    store: Store, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(str(images), store, "pets")
    sha256 = hashlib.sha256(payload + bytes(1)).hexdigest()
    store.put("data/pets/evil.tar", payload + bytes(1))
    shard = Shard(key="evil.tar", size=len(payload) + 1, sha256=sha256)
    split = Split(samples=[Sample(0, 0, len(payload), 0, crc32(payload), 0, "evil.png")], shards=[shard])
    index = load_index(store, "pets").but(splits={"train": split})
    samples = ShardSamples(DatasetPlace(store=store, prefix="data/pets/"), index, "train", tmp_path / "cache")
    with pytest.raises(ObjectCorrupt, match=r"evil\.png of the dataset is no image"):
        read(samples, [0])
    assert not (tmp_path / "exploded").exists()
