"""Preparing as a process: resumed, in parallel, to and from any place, verified, and refused."""

from __future__ import annotations

import errno
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from starling.infra.clock import FakeClock
from starling.infra.errors import StoreError, StoreUnavailable, UsageError
from starling.infra.store import Store
from starling.infra.store.anywhere import FsspecStorage, open_storage
from starling.trainer.data import packing
from starling.trainer.data.contact_sheet import contact_sheet
from starling.trainer.data.describe import describe
from starling.trainer.data.index import load_index, locate
from starling.trainer.data.prepare import prepare
from starling.trainer.data.preparing_progress import Pace
from starling.trainer.data.rendition import Rendition
from starling.trainer.data.shard import ShardWriter
from starling.trainer.data.sources.found import LabelTable
from starling.trainer.data.verify import verify

WriteImage = Callable[..., Path]


@pytest.fixture
def memory() -> Iterator[str]:
    """A place that only fsspec knows."""
    from fsspec.implementations.memory import MemoryFileSystem

    yield "memory://starling"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def stored(store: Store) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list()}


def test_samples_lie_in_the_order_of_a_hash(store: Store, images: Path) -> None:
    prepare(str(images), store, "pets", shard_bytes=20480)
    split = load_index(store, "pets").splits["train"]
    assert len(split.shards) == 1
    keys = [sample.key for sample in split.samples]
    assert keys != sorted(keys)
    assert {key.split("/")[0] for key in keys[: len(keys) // 2]} == {"cat", "dog"}


def test_any_number_of_workers_gives_the_same_bytes(store: Store, images: Path) -> None:
    rendition = Rendition(size=16)
    prepare(str(images), store, "one", rendition=rendition, shard_bytes=4096, workers=1)
    prepare(str(images), store, "two", rendition=rendition, shard_bytes=4096, workers=2)
    one, two = (
        {key.split("/", 2)[2]: data for key, data in stored(store).items() if key.split("/")[1] == name}
        for name in ("one", "two")
    )
    named = json.loads(one.pop("index.json")) | {"name": "two"}
    assert named == json.loads(two.pop("index.json"))
    assert one == two


def test_a_shard_is_never_larger_than_asked_unless_one_image_is(store: Store, write_image: WriteImage) -> None:
    for number in range(12):
        root = write_image(f"{'ab'[number % 2]}/{number}.png", height=30, width=30).parents[1]
    write_image("a/large.png", height=100, width=100)
    prepare(str(root), store, "sizes", shard_bytes=10240, fraction=0)
    split = load_index(store, "sizes").splits["train"]
    counts = [sum(sample.shard == number for sample in split.samples) for number in range(len(split.shards))]
    assert all(shard.size <= 10240 or count == 1 for shard, count in zip(split.shards, counts, strict=True))
    assert any(shard.size > 10240 for shard in split.shards)


def test_nothing_is_read_when_nothing_has_changed(store: Store, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(str(images), store, "pets")
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert prepare(str(images), store, "pets")["already_prepared"] is True
    monkeypatch.setattr(Path, "read_bytes", read)
    (images / "cat" / "00.png").write_bytes((images / "cat" / "01.png").read_bytes())
    second = prepare(str(images), store, "pets")
    assert second["replaced"] == first["content_sha256"]


class Killed(BaseException):
    pass


def test_finished_shards_are_not_made_again(store: Store, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = prepare(str(images), store, "whole", shard_bytes=4096)
    finish, left = ShardWriter.finish, [3]

    def killed(self: ShardWriter) -> str:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return finish(self)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "finish", killed)
        with pytest.raises(Killed):
            prepare(str(images), store, "pets", shard_bytes=4096)
    assert len(list(store.list("data/pets/parts/"))) == 3
    lines: list[str] = []
    summary = prepare(str(images), store, "pets", shard_bytes=4096, progress=lines.append)
    assert summary["content_sha256"] == wanted["content_sha256"]
    assert summary["uploaded_shards"] == summary["shards"] - 3
    assert any("goes on behind 3 shards" in line for line in lines)
    assert not list(store.list("data/pets/parts/"))


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`lock(name)`: files of that name cannot be read; "": all can again. Permissions would not stop root."""
    read, locked = Path.read_bytes, [""]

    def read_bytes(path: Path) -> bytes:
        if path.name == locked[0]:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return lambda name: locked.__setitem__(0, name)


def test_an_image_that_can_be_read_again_is_taken_up(store: Store, images: Path, lock: Callable[[str], None]) -> None:
    (images / "cat" / "broken.png").write_bytes(b"no image")
    whole = prepare(str(images), store, "whole")
    lock("03.png")
    left = [entry["key"] for entry in prepare(str(images), store, "pets")["left_out"]]
    assert sorted(left) == ["cat/03.png", "cat/broken.png", "dog/03.png"]
    assert prepare(str(images), store, "pets")["already_prepared"] is True
    lock("")
    lines: list[str] = []
    mended = prepare(str(images), store, "pets", progress=lines.append)
    assert mended["content_sha256"] == whole["content_sha256"]
    assert [entry["key"] for entry in mended["left_out"]] == ["cat/broken.png"]
    assert any("03.png was left out, and can be used now" in line for line in lines)
    assert prepare(str(images), store, "pets")["already_prepared"] is True


def test_a_finished_shard_is_made_again_if_an_image_it_lacks_can_be_read(
    store: Store, images: Path, lock: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = prepare(str(images), store, "whole", shard_bytes=4096)
    lock("03.png")
    with monkeypatch.context() as patched:
        patched.setattr("starling.trainer.data.prepare._commit", lambda place, index: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            prepare(str(images), store, "pets", shard_bytes=4096)
    assert list(store.list("data/pets/parts/"))
    lock("")
    assert prepare(str(images), store, "pets", shard_bytes=4096)["content_sha256"] == wanted["content_sha256"]


def test_shards_of_another_wish_are_not_taken_for_finished(
    store: Store, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(packing.Packing, "forget", lambda self: (_ for _ in ()).throw(Killed()))
        patched.setattr("starling.trainer.data.prepare._commit", lambda place, index: "")
        with pytest.raises(Killed):
            prepare(str(images), store, "pets", rendition=Rendition(size=8))
    summary = prepare(str(images), store, "pets", rendition=Rendition(size=16))
    assert (summary["image"]["height"], summary["uploaded_shards"]) == (16, 2)


def test_a_full_disk_is_named_and_nothing_is_committed(
    store: Store, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ShardWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "_write", full)
        with pytest.raises(StoreUnavailable, match=r"cannot write .*No space left on device; free some space there"):
            prepare(str(images), store, "pets")
    with pytest.raises(UsageError, match="no dataset called pets"):
        load_index(store, "pets")


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5])
def test_an_impossible_fraction_is_refused(store: Store, images: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="--split"):
        prepare(str(images), store, "pets", fraction=fraction)


def test_a_fraction_does_not_overrule_the_source(store: Store, write_image: WriteImage) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "val/a/2.png"):
        root = write_image(path).parents[2]
    with pytest.raises(UsageError, match="already says what validates, by its folders"):
        prepare(str(root), store, "pets", fraction=0.2)


def test_a_column_decides_the_split_and_is_recorded(store: Store, images: Path) -> None:
    rows = [
        f"{name}/{number:02}.png,{name},{'test' if number > 7 else 'train'}"
        for name in ("cat", "dog")
        for number in range(10)
    ]
    (images.parent / "labels.csv").write_text("\n".join(["image,label,split", *rows]))
    prepare(str(images), store, "pets", labels=LabelTable(path=str(images.parent / "labels.csv")))
    found = describe(store, "pets")
    assert {name: split["class_counts"] for name, split in found["splits"].items()} == {
        "train": [8, 8],
        "test": [2, 2],
    }
    assert (found["prepared"]["split_by"], found["prepared"]["patient_wise"]) == ("column", False)


def test_a_png_that_became_a_jpeg_says_so_in_the_shard(store: Store, images: Path) -> None:
    prepare(str(images), store, "pets", rendition=Rendition(size=8), fraction=0)
    index, place = load_index(store, "pets"), locate(store, "pets")
    shard = index.splits["train"].shards[0]
    with tarfile.open(fileobj=io.BytesIO(place.read_shard(shard, 0, shard.size))) as archive:
        assert archive.getnames() == [f"{sample.key}.jpg" for sample in index.splits["train"].samples]


def test_a_dataset_may_lie_and_come_from_wherever_fsspec_can_reach(store: Store, images: Path, memory: str) -> None:
    import fsspec

    source = f"{memory}/source"
    for path in images.rglob("*.png"):
        with fsspec.open(f"{source}/{path.relative_to(images)}", "wb") as file:
            file.write(path.read_bytes())
    local = prepare(str(images), store, "pets")
    remote = prepare(source, store, f"{memory}/sets/pets")
    assert remote["content_sha256"] == local["content_sha256"]
    assert remote["uri"] == f"{memory}/sets/pets"
    assert prepare(source, store, f"{memory}/sets/pets")["already_prepared"] is True
    assert verify(store, f"{memory}/sets/pets")["intact"] is True
    assert not list(open_storage(f"{memory}/sets/pets").list("parts/"))


def test_an_unknown_or_missing_protocol_is_named(store: Store, images: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        prepare("nonsense://bucket/images", store, "pets")
    with pytest.raises(UsageError, match=r"gs:// needs another package: .*gcsfs"):
        prepare(str(images), store, "gs://bucket/pets")


def test_what_fsspec_raises_becomes_our_error(memory: str, tmp_path: Path) -> None:
    storage = FsspecStorage(memory)
    storage.put("a/b", b"123")
    assert storage.read_range("a/b", 1, 5) == b"23"
    with pytest.raises(StoreError, match="changed by another writer"):
        storage.replace("a/b", b"4", "other")
    with pytest.raises(StoreError, match="exists already"):
        storage.create("a/b", b"4")
    with pytest.raises(StoreError, match="memory://starling/a/c: it is not there"):
        storage.get("a/c")
    with pytest.raises(StoreError, match="SHA-256"):
        storage.download("a/b", tmp_path / "copy", sha256="0" * 64)
    assert [info.key for info in storage.list("a/")] == ["a/b"]
    storage.delete("a/b")
    storage.delete("a/b")
    assert list(storage.list("")) == []


def damage(store: Store, key: str, at: int) -> None:
    path = Path(store.uri) / key
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [1, 2])
def test_damage_is_found_named_and_mended(store: Store, images: Path, workers: int) -> None:
    prepare(str(images), store, "pets", shard_bytes=4096)
    index = load_index(store, "pets")
    first, second, third = index.splits["train"].shards[:3]
    hit = next(sample for sample in index.splits["train"].samples if sample.shard == 0)
    damage(store, f"data/pets/{first.key}", hit.offset + 5)
    (Path(store.uri) / "data/pets" / second.key).unlink()
    data = (Path(store.uri) / "data/pets" / third.key).read_bytes()
    (Path(store.uri) / "data/pets" / third.key).write_bytes(data[:700])
    found = verify(store, "pets", workers=workers)
    problems = {(entry["shard"], entry["key"]): entry["problem"] for entry in found["damaged"]}
    assert found["intact"] is False
    assert problems[first.key, None] == "its content does not match its SHA-256"
    assert problems[first.key, hit.key] == "its bytes do not match their CRC-32"
    assert problems[second.key, None].startswith("it is missing")
    assert problems[third.key, None] == f"it has 700 bytes, and should have {third.size}"
    prepare(str(images), store, "pets", shard_bytes=4096, again=True)
    assert verify(store, "pets")["intact"] is True


def test_an_image_that_cannot_be_decoded_is_damage(store: Store, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starling.trainer.data import rendering
    from starling.trainer.data.decode import Inspected
    from starling.trainer.data.rendition import Rendered

    broken = Rendered(data=b"no picture", kind=Inspected(False, 6, 5))
    with monkeypatch.context() as patched:
        patched.setattr(rendering, "render", lambda data, rendition: broken)
        prepare(str(images), store, "pets")
    problems = {entry["problem"] for entry in verify(store, "pets")["damaged"]}
    assert problems == {"cannot be decoded: it is no PNG or JPEG image"}


def test_the_contact_sheet_has_a_row_for_each_class(store: Store, write_image: WriteImage) -> None:
    colours = {"blue": (0, 0, 255), "red": (255, 0, 0)}
    for name, colour in colours.items():
        for number in range(4):
            Image.new("RGB", (40, 30), colour).save(write_image(f"{name}/{number}.png"))
    root = write_image("blue/0.png", height=30, width=40).parents[1]
    Image.new("RGB", (40, 30), colours["blue"]).save(root / "blue" / "0.png")
    prepare(str(root), store, "colours", fraction=0)
    pixels = np.asarray(contact_sheet(store, "colours", "train", 3))
    blue, red = ((pixels == np.array(colour)).all(axis=2) for colour in colours.values())
    assert blue.sum() == red.sum() == 3 * 128 * 96
    assert np.flatnonzero(blue.any(axis=1)).max() < np.flatnonzero(red.any(axis=1)).min()
    with pytest.raises(UsageError, match="no split 'test'; it has train"):
        contact_sheet(store, "colours", "test", 3)


def test_progress_says_rate_and_rest_every_few_seconds() -> None:
    clock, lines = FakeClock(), list[str]()
    pace = Pace(1000, "images", lines.append, clock)
    clock.sleep(60)  # workers start: no work yet
    pace.count()
    for _ in range(19):
        clock.sleep(0.5)
        pace.count()
    assert lines[0] == "7 of 1,000 images (2/s, about 7 min 06 s left)"
    assert len(lines) == 3


def test_verify_does_not_believe_an_absurd_size(store: Store, images: Path) -> None:
    prepare(str(images), store, "pets")
    index = json.loads(store.get("data/pets/index.json").data)
    index["splits"]["train"]["shards"][0]["size"] = 10**18
    store.put("data/pets/index.json", json.dumps(index).encode())
    (damage,) = verify(store, "pets")["damaged"]
    assert "and should have 1000000000000000000" in damage["problem"]
