"""`starling data prepare | inspect | verify | sample` as a user types them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from starling.cli.datasets import ensure_dataset, size_now
from starling.infra.store import open_store
from tests.support.command_line import Starling, command_line
from tests.support.specs import spec


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Starling:
    """Runs `starling data ...` in this process, in `tmp_path` and with a home of its own."""
    monkeypatch.setenv("STARLING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STARLING_STORE", raising=False)
    monkeypatch.chdir(tmp_path)

    return command_line(monkeypatch, capfd, "data")


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    """Ten patients in Kaggle's layout; one image is empty, one row too many."""
    folder = tmp_path / "eyes"
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows = ["image,level", "99_left,0"]
    for patient in range(10):
        for side in ("left", "right"):
            pixels = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{patient}_{side}.jpeg")
            rows.append(f"{patient}_{side},{patient % 2}")
    (folder / "4_left.jpeg").write_bytes(b"")
    (folder / "trainLabels.csv").write_text("\n".join(rows))
    return folder


def test_a_dataset_is_prepared_looked_at_and_verified(data: Starling, eyes: Path, tmp_path: Path) -> None:
    prepared = data("prepare", "eyes", "./sets/eyes", "--size", "32", "--split", "0.2", "--shard-size", "10KiB")
    assert prepared.code == 0
    assert f"dataset eyes is at {tmp_path}/sets/eyes" in prepared.out
    assert "left out: 1 missing, 1 unreadable" in prepared.out
    assert "4_left.jpeg: the file is empty (0 bytes)" in prepared.out

    told = data("inspect", "./sets/eyes")
    assert "images: 32 x 32, colour" in told.out
    assert "split: 0.2 of each class validates, by a hash; all images of a patient are in one split" in told.out
    assert "made: 32 pixels a side, JPEG 90" in told.out
    found = data("inspect", "./sets/eyes", "--json").document
    assert found["left_out_counts"] == {"missing": 1, "unreadable": 1}
    assert sum(sum(split["class_counts"]) for split in found["splits"].values()) == 19

    assert data("verify", "./sets/eyes").out.startswith("dataset eyes is intact")
    assert data("sample", "./sets/eyes", "--json").document["sheet"] == str(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.format, sheet.height) == ("PNG", 2 * 132 + 4)


def test_damage_makes_verify_exit_with_1_and_says_how_to_mend(data: Starling, eyes: Path, tmp_path: Path) -> None:
    data("prepare", "eyes", "eyes")
    shard = next((tmp_path / "home/store/data/eyes/train").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    told = data("verify", "eyes")
    assert told.code == 1
    assert f"train/{shard.name}: its content does not match its SHA-256" in told.out
    assert "--again" in told.out
    assert data("verify", "eyes", "--json").code == 1
    assert "already prepared" in data("prepare", "eyes", "eyes").err
    assert data("prepare", "eyes", "eyes", "--again").code == 0
    assert data("verify", "eyes").code == 0


@pytest.mark.parametrize("name", ["eyes", "memory://spec-source/sets/eyes"])
def test_a_spec_has_its_dataset_prepared_from_its_source(data: Starling, eyes: Path, tmp_path: Path, name: str) -> None:
    wanted = spec(task="classification", model="small-cnn", data={"dataset": name, "source": "eyes"})
    store = open_store(str(tmp_path / "store"))
    file = tmp_path / "spec.yaml"
    counted = size_now(wanted, file, store)
    assert not list(store.list())
    prepared = ensure_dataset(wanted, file, store)
    assert counted is not None
    assert prepared is not None
    assert counted - 1 <= prepared <= counted  # the empty image is only found when it is read
    assert size_now(wanted, file, store) == ensure_dataset(wanted, file, store) == prepared


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "eyes", "./eyes"], "SOURCE and DEST are the same folder"),
        (["prepare", "eyes", "eyes", "--shard-size", "many"], "--shard-size: 'many' is no size; write 32MiB"),
        (["prepare", "eyes", "eyes", "--shard-size", "0"], "--shard-size: give at least one byte"),
        (["prepare", "eyes", "eyes", "--split", "2"], "--split 2: give the part that validates"),
        (["prepare", "eyes", "eyes", "--size", "0"], "--size 0: give 1 to"),
        (["prepare", "eyes", "eyes", "--label-column", "grade"], "no column 'grade'; it has image, level"),
        (["prepare", "eyes", "az://bucket/eyes"], "az:// needs another package"),
        (["prepare", "nowhere", "eyes"], "there is no folder nowhere"),
        (["inspect", "eyes"], "starling data prepare FOLDER_OF_IMAGES eyes"),
        (["sample", "eyes", "--out", "sheet.jpg"], "give a name that ends in .png"),
    ],
)
def test_wrong_usage_exits_with_2_and_writes_nothing(
    data: Starling, eyes: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    told = data(*arguments)
    assert told.code == 2
    assert message in told.err
    assert not list(tmp_path.rglob("index.json"))
