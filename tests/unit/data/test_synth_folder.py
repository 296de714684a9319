"""`data synth fundus`: the folder, its tables, and that it can be interrupted and gone on with."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from starling.cli import main
from starling.infra.errors import UsageError
from starling.trainer.data.sources.rendered import SEED, SIZE, rendered_fundus
from starling.trainer.data.synth.folder import write_fundus
from starling.trainer.data.synth.lesions import KINDS


def write(folder: Path, images: int = 6, *, seed: int = 5, workers: int = 1) -> dict[str, Any]:
    return write_fundus(folder, images=images, seed=seed, size=48, workers=workers, progress=lambda text: None)


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_layout_is_that_of_kaggle(tmp_path: Path) -> None:
    summary = write(tmp_path, 5)
    labels = rows(tmp_path / "trainLabels.csv")
    assert [row["image"] for row in labels] == ["1_left", "1_right", "2_left", "2_right", "3_left"]
    assert sorted(path.stem for path in tmp_path.glob("*.jpeg")) == sorted(row["image"] for row in labels)
    with Image.open(tmp_path / "3_left.jpeg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (48, 48), "RGB")
    assert summary["levels"] == {str(level): Counter(row["level"] for row in labels)[str(level)] for level in range(5)}


def test_what_is_built_in_is_what_the_command_writes(tmp_path: Path) -> None:
    found = rendered_fundus().images
    write_fundus(tmp_path, images=4, seed=SEED, size=SIZE, workers=1, progress=lambda text: None)
    labels = {row["image"]: row["level"] for row in rows(tmp_path / "trainLabels.csv")}
    for image in found[:4]:
        assert image.read() == (tmp_path / image.key).read_bytes()
        assert image.class_name == labels[Path(image.key).stem]
    assert [image.patient for image in found[:4]] == ["1", "1", "2", "2"]
    assert len({image.key for image in found}) == 600
    assert {image.class_name for image in found} == {"0", "1", "2", "3", "4"}


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one", workers=1)
    write(tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_the_tables_agree(tmp_path: Path) -> None:
    write(tmp_path, 40)
    found = Counter((row["image"], row["kind"]) for row in rows(tmp_path / "lesions.csv"))
    assert found, "the seed should give lesions"
    for row in rows(tmp_path / "truth.csv"):
        assert {kind: found[row["image"], kind] for kind in KINDS} == {kind: int(row[kind]) for kind in KINDS}
    for row in rows(tmp_path / "lesions.csv"):
        assert 0 <= float(row["x"]) <= 48
        assert 0 <= float(row["y"]) <= 48
        assert float(row["radius"]) > 0


def test_the_same_command_renders_only_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path)
    whole = content(tmp_path)
    torn = tmp_path / "1_left.jpeg"
    torn.write_bytes(torn.read_bytes()[:200])
    (tmp_path / "2_left.jpeg").write_bytes(b"")
    (tmp_path / "3_left.jpeg").unlink()
    (tmp_path / "trainLabels.csv").unlink()
    (tmp_path / ".1_right.jpeg.0badcafe").write_bytes(b"half")
    assert write(tmp_path)["kept"] == 3
    assert content(tmp_path) == whole


def test_a_folder_can_grow(tmp_path: Path) -> None:
    write(tmp_path / "grown", 4)
    assert write(tmp_path / "grown", 6)["kept"] == 4
    write(tmp_path / "whole", 6)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")


def test_other_seeds_give_other_eyes(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, seed=1)
    write(tmp_path / "b", 1, seed=2)
    assert content(tmp_path / "a")["1_left.jpeg"] != content(tmp_path / "b")["1_left.jpeg"]


@pytest.mark.parametrize(
    ("images", "seed", "other", "complaint"),
    [
        (6, 5, "holiday.jpg", r"holds 1 files that are not among these 6 images \(holiday.jpg\)"),
        (4, 5, None, "holds 2 files that are not among these 4 images .*larger --images"),
        (6, 6, None, "was rendered with .*'seed': 5.*another folder"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, images: int, seed: int, other: str | None, complaint: str
) -> None:
    write(tmp_path)
    if other:
        (tmp_path / other).touch()
    before = content(tmp_path)
    with pytest.raises(UsageError, match=complaint):
        write(tmp_path, images, seed=seed)
    assert content(tmp_path) == before


def test_a_folder_that_we_never_wrote_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1_left.jpeg").touch()
    with pytest.raises(UsageError, match="holds other things"):
        write(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write the images"):
        write(tmp_path / "file" / "below")


def starling(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["starling", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_verb_writes_a_folder_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "synth", "fundus", str(tmp_path / "eyes"), "--images", "3", "--size", "48", "--workers", "1"]
    assert starling(monkeypatch, *words) == 0
    assert f"starling data prepare {tmp_path / 'eyes'} fundus --labels trainLabels.csv" in capfd.readouterr().out
    assert starling(monkeypatch, *words, "--json") == 0
    assert json.loads(capfd.readouterr().out)["kept"] == 3
    assert starling(monkeypatch, *words, "--seed", "9") == 2
    assert "was rendered with" in capfd.readouterr().err
