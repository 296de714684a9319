from __future__ import annotations

import errno
import io
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from starling.infra import layout
from starling.infra.errors import StoreAccessDenied, StoreUnavailable, UsageError
from starling.infra.store import Store
from starling.trainer.data.index import DatasetIndex, DatasetPlace, load_index
from starling.trainer.data.patient_split import validation_keys
from starling.trainer.data.prepare import prepare

WriteImage = Callable[..., Path]


def class_counts(index: DatasetIndex, split: str) -> dict[str, int]:
    return dict(Counter(index.classes[sample.label] for sample in index.splits[split].samples))


def stored(store: Store) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list()}


def test_digits_are_the_1797_of_scikit_learn(store: Store) -> None:
    from sklearn.datasets import load_digits

    summary = prepare("digits", store, "digits")
    index = load_index(store, "digits")
    assert sum(summary["splits"].values()) == 1797
    assert index.classes == [str(digit) for digit in range(10)]
    assert index.image.model_dump() == {"mode": "L", "height": 8, "width": 8}

    sample = index.splits["val"].samples[17]
    place = DatasetPlace(store=store, prefix=layout.dataset("digits"))
    key = place.shard_key(index.splits["val"].shards[sample.shard])
    pixels = np.asarray(Image.open(io.BytesIO(store.read_range(key, sample.offset, sample.length))))
    label, number = sample.key.removesuffix(".png").split("/")
    original = load_digits()
    assert original.target[int(number)] == int(label) == sample.label
    assert np.array_equal((pixels / (255 / 16)).round(), original.images[int(number)])


def test_a_plain_folder_is_split_by_class_into_four_fifths_and_one(store: Store, images: Path) -> None:
    prepare(str(images), store, "pets")
    index = load_index(store, "pets")
    assert class_counts(index, "train") == {"cat": 8, "dog": 8}
    assert class_counts(index, "val") == {"cat": 2, "dog": 2}
    keys = [sample.key for split in index.splits.values() for sample in split.samples]
    assert len(set(keys)) == 20


def test_the_validation_part_stays_what_it_was_in_the_first_release() -> None:
    assert validation_keys(f"cat/{number}.png" for number in range(10)) == {"cat/0.png", "cat/8.png"}


def test_an_image_stays_in_its_split_wherever_the_folder_lies(store: Store, images: Path, tmp_path: Path) -> None:
    first = prepare(str(images), store, "pets")
    images.rename(tmp_path / "elsewhere")
    second = prepare(str(tmp_path / "elsewhere"), store, "same-pets")
    assert first["content_sha256"] == second["content_sha256"]


@pytest.mark.parametrize(("folder", "split"), [("val", "val"), ("valid", "val"), ("test", "test")])
def test_a_split_folder_keeps_its_splits(store: Store, write_image: WriteImage, folder: str, split: str) -> None:
    for class_name in ("a", "b"):
        root = write_image(f"train/{class_name}/1.png").parents[2]
        write_image(f"train/{class_name}/deeper/2.JPG")
        write_image(f"{folder}/{class_name}/3.jpeg")
    prepare(str(root), store, "split")
    index = load_index(store, "split")
    assert class_counts(index, "train") == {"a": 2, "b": 2}
    assert sorted(sample.key for sample in index.splits[split].samples) == [f"{folder}/a/3.jpeg", f"{folder}/b/3.jpeg"]


def test_preparing_again_uploads_nothing_and_says_so(store: Store, images: Path) -> None:
    lines: list[str] = []
    first = prepare(str(images), store, "pets")
    before = stored(store)
    second = prepare(str(images), store, "pets", progress=lines.append)
    assert stored(store) == before
    assert (first["already_prepared"], first["uploaded_shards"]) == (False, 2)
    assert (second["already_prepared"], second["uploaded_shards"]) == (True, 0)
    assert "already prepared" in lines[-1]


def test_other_content_replaces_the_index_and_keeps_the_shards_of_the_old(
    store: Store, images: Path, write_image: WriteImage
) -> None:
    old = prepare(str(images), store, "pets")
    before = stored(store)
    write_image("cat/new.png")
    lines: list[str] = []
    new = prepare(str(images), store, "pets", progress=lines.append)
    assert new["replaced"] == old["content_sha256"] != new["content_sha256"]
    assert load_index(store, "pets").content_sha256 == new["content_sha256"]
    assert "had other content before" in lines[-1]
    shards = {key: data for key, data in before.items() if key.endswith(".tar")}
    assert shards.items() <= stored(store).items()


def test_a_damaged_index_gives_way(store: Store, images: Path) -> None:
    store.put("data/pets/index.json", b"{")
    assert prepare(str(images), store, "pets")["replaced"] == "damaged"
    assert load_index(store, "pets").classes == ["cat", "dog"]


def test_shards_are_cut_at_the_wanted_size_and_hold_every_image(store: Store, images: Path) -> None:
    summary = prepare(str(images), store, "pets", shard_bytes=4096)
    split = load_index(store, "pets").splits["train"]
    assert len(split.shards) > 2
    assert summary["shards"] > len(split.shards)
    names = []
    for shard in split.shards:
        with tarfile.open(fileobj=io.BytesIO(store.get(f"data/pets/{shard.key}").data)) as archive:
            names += archive.getnames()
    assert names == [sample.key for sample in split.samples]


def test_unreadable_images_are_left_out_with_their_reasons(store: Store, images: Path) -> None:
    (images / "cat" / "empty.png").touch()
    whole = (images / "cat" / "00.png").read_bytes()
    (images / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((6, 5), dtype=np.uint16)).save(images / "dog" / "sixteen.png")
    Image.open(images / "cat" / "00.png").save(images / "dog" / "bitmap.png", "BMP")
    lines: list[str] = []
    summary = prepare(str(images), store, "pets", progress=lines.append)
    reasons = {entry.key: entry.reason for entry in load_index(store, "pets").left_out}
    assert reasons == {entry["key"]: entry["reason"] for entry in summary["left_out"]}
    assert set(reasons) == {"cat/empty.png", "dog/cut.png", "dog/sixteen.png", "dog/bitmap.png"}
    assert "8 bits" in reasons["dog/sixteen.png"]
    assert any(line.startswith("left out dog/cut.png") for line in lines)
    assert sum(summary["splits"].values()) == 20


def test_what_is_no_image_in_a_class_is_counted(store: Store, images: Path) -> None:
    (images / "cat" / "notes.txt").touch()
    (images / "cat" / ".DS_Store").touch()
    (images / "README").touch()
    summary = prepare(str(images), store, "pets")
    assert summary["ignored"] == {"hidden": 1, ".txt": 1, "outside a class folder": 1}


def test_names_that_are_no_unicode_are_spelled_out(store: Store, images: Path) -> None:
    os.rename(os.fsencode(images / "cat" / "00.png"), os.fsencode(images / "cat") + b"/\xff.png")
    prepare(str(images), store, "pets")
    keys = [sample.key for split in load_index(store, "pets").splits.values() for sample in split.samples]
    assert "cat/\\xff.png" in keys


@pytest.mark.parametrize(
    ("modes", "sizes", "expected"),
    [
        (["L", "L"], [(6, 5), (6, 5)], ("L", 6, 5)),
        (["L", "RGB"], [(6, 5), (6, 5)], ("RGB", 6, 5)),
        (["RGBA", "RGB"], [(6, 5), (5, 6)], ("RGB", None, None)),
    ],
)
def test_the_index_tells_what_all_images_have_in_common(
    store: Store,
    write_image: WriteImage,
    modes: list[str],
    sizes: list[tuple[int, int]],
    expected: tuple[str, int | None, int | None],
) -> None:
    for mode, (height, width), class_name in zip(modes, sizes, "ab", strict=True):
        root = write_image(f"{class_name}/1.png", mode=mode, height=height, width=width).parents[1]
    prepare(str(root), store, "mixed")
    image = load_index(store, "mixed").image
    assert (image.mode, image.height, image.width) == expected


def test_no_index_appears_before_all_shards_are_there(
    store: Store, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, left = type(store).upload, [2]

    def failing(self: Store, path: Path, key: str) -> str:
        if not left[0]:
            raise StoreUnavailable("the network is gone")
        left[0] -= 1
        return upload(self, path, key)

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "upload", failing)
        with pytest.raises(StoreUnavailable):
            prepare(str(images), store, "pets", shard_bytes=4096)
    with pytest.raises(UsageError, match="no dataset called pets"):
        load_index(store, "pets")
    summary = prepare(str(images), store, "pets", shard_bytes=4096)
    assert summary["uploaded_shards"] == summary["shards"] - 2


def test_a_missing_folder_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*/nowhere .*digits"):
        prepare(str(tmp_path / "nowhere"), store, "pets")


def test_a_folder_without_images_says_what_lies_there_and_what_should(store: Store, tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "1.bmp").touch()
    with pytest.raises(UsageError, match=r"no images found in .*\.bmp: 1.*<class>"):
        prepare(str(tmp_path / "images"), store, "pets")


def test_one_class_is_too_few(store: Store, write_image: WriteImage) -> None:
    root = write_image("cat/1.png").parents[1]
    with pytest.raises(UsageError, match=r"only one class to learn \(cat\)"):
        prepare(str(root), store, "pets")


def test_classes_to_evaluate_must_be_learnt(store: Store, write_image: WriteImage) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"):
        root = write_image(path).parents[2]
    with pytest.raises(UsageError, match=r"train/ lacks: c$"):
        prepare(str(root), store, "pets")


def test_val_and_valid_together_are_refused(store: Store, write_image: WriteImage) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/b/1.png"):
        root = write_image(path).parents[2]
    with pytest.raises(UsageError, match="both val/ and valid/"):
        prepare(str(root), store, "pets")


def test_a_class_of_unreadable_images_is_refused(store: Store, images: Path) -> None:
    (images / "bird").mkdir()
    (images / "bird" / "1.png").write_bytes(b"not a picture")
    with pytest.raises(
        UsageError, match=r"no readable training image in class bird \(for instance bird/1.png: it is no PNG or JPEG"
    ):
        prepare(str(images), store, "pets")


def test_a_split_of_unreadable_images_is_refused(store: Store, write_image: WriteImage) -> None:
    for path in ("train/a/1.png", "train/b/1.png"):
        root = write_image(path).parents[2]
    write_image("val/a/1.png").write_bytes(b"")
    with pytest.raises(UsageError, match="no readable image in split val"):
        prepare(str(root), store, "pets")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 101])
def test_names_that_cannot_be_keys_are_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a dataset"):
        prepare("digits", store, name)
    assert stored(store) == {}


@pytest.mark.parametrize("folder", ["validation", "Val"])
def test_splits_may_be_written_otherwise(store: Store, write_image: WriteImage, folder: str) -> None:
    for class_name in ("a", "b"):
        root = write_image(f"Train/{class_name}/1.png").parents[2]
        write_image(f"{folder}/{class_name}/2.png")
    prepare(str(root), store, "pets")
    assert load_index(store, "pets").classes == ["a", "b"]
    assert class_counts(load_index(store, "pets"), "val") == {"a": 1, "b": 1}


@pytest.mark.parametrize("other", ["holdout", "test"])
def test_a_split_is_never_taken_for_a_class(store: Store, write_image: WriteImage, other: str) -> None:
    for class_name in ("a", "b"):
        root = write_image(f"val/{class_name}/1.png").parents[2]
        write_image(f"{other}/{class_name}/2.png")
    with pytest.raises(UsageError, match="looks like a split"):
        prepare(str(root), store, "pets")


def test_a_class_may_be_called_train(store: Store, write_image: WriteImage) -> None:
    for class_name in ("train", "bus"):
        root = write_image(f"{class_name}/1.png").parents[1]
    prepare(str(root), store, "vehicles")
    assert load_index(store, "vehicles").classes == ["bus", "train"]


def test_a_dataset_may_lie_among_its_images(store: Store, write_image: WriteImage) -> None:
    for class_name in ("a", "b"):
        root = write_image(f"train/{class_name}/1.png").parents[2]
        write_image(f"val/{class_name}/2.png")
    first = prepare(str(root), store, str(root / "prepared"))
    assert prepare(str(root), store, str(root / "prepared"))["already_prepared"]
    assert first["splits"] == {"train": 2, "val": 2}


def test_pipes_are_not_read_and_links_are_not_followed_out_or_round(store: Store, images: Path) -> None:
    os.mkfifo(images / "cat" / "pipe.png")
    (images / "cat" / "up").symlink_to("../..")
    (images / "cat" / "round").symlink_to("../cat")
    prepare(str(images), store, "pets")
    index = load_index(store, "pets")
    assert sum(len(split.samples) for split in index.splits.values()) == 20
    assert index.ignored == {"link to a folder that is listed elsewhere": 2, "no regular file": 1}


def test_a_folder_that_cannot_be_listed_ends_the_preparation(
    store: Store, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # tests may run as root, who may list everything
    with pytest.raises(StoreAccessDenied, match=r"cannot list .*dog: Permission denied"):
        prepare(str(images), store, "pets")


@pytest.mark.parametrize(("code", "ends"), [(errno.EIO, True), (errno.EMFILE, True), (errno.EACCES, False)])
def test_a_failing_disk_is_no_reason_to_leave_images_out(
    store: Store, images: Path, monkeypatch: pytest.MonkeyPatch, code: int, ends: bool
) -> None:
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "03.png" and path.parent.name == "cat":
            raise OSError(code, os.strerror(code), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    if ends:
        with pytest.raises(StoreUnavailable, match=r"cannot read cat/03.png"):
            prepare(str(images), store, "pets")
        assert not (Path(store.uri) / "data/pets/index.json").exists()
    else:
        assert prepare(str(images), store, "pets")["left_out_counts"] == {"unreadable": 1}


def test_a_folder_whose_name_is_no_unicode_can_be_prepared(store: Store, images: Path) -> None:
    odd = os.fsdecode(os.fsencode(images) + b"\xff")
    os.rename(images, odd)
    prepare(odd, store, "pets")
    assert load_index(store, "pets").source.endswith("images\\xff")


def test_a_file_too_large_for_any_image_is_not_read(store: Store, images: Path) -> None:
    with (images / "cat" / "huge.png").open("wb") as file:
        file.truncate(2**30 + 1)
    (left_out,) = prepare(str(images), store, "pets", workers=1)["left_out"]
    assert left_out["reason"] == "the file has 1,073,741,825 bytes, more than 1,073,741,824"
