"""Tiles for the lesion detector: what they show, which split they are of, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from starling.cli.data_app import data_app
from starling.infra.errors import UsageError
from starling.infra.store import open_store
from starling.trainer.data.index import load_index
from starling.trainer.data.prepare import prepare
from starling.trainer.data.tiles import Cut, Spot, cut_tiles, read_spots

CUT = Cut(tile=16, per_lesion=2)


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    """Ten patients with two grey eyes each; the left eyes of every second one show a white lesion."""
    folder = tmp_path / "eyes"
    folder.mkdir()
    labels, lesions = ["image,level"], ["image,kind,x,y,radius"]
    for number in range(10):
        for side in ("left", "right"):
            pixels = np.full((64, 80, 3), 100, dtype=np.uint8)
            pixels[:, 60:] = 0  # the black around the picture
            ill = side == "left" and number % 2 == 0
            if ill:
                pixels[28:33, 18:23] = 255
                lesions.append(f"{number}_{side},exudate,20,30,3")
            labels.append(f"{number}_{side},{2 * ill}")
            Image.fromarray(pixels).save(folder / f"{number}_{side}.png")
    (folder / "labels.csv").write_text("\n".join(labels))
    (tmp_path / "lesions.csv").write_text("\n".join(lesions))
    return folder


def cut(eyes: Path, name: str = "tiles", how: Cut = CUT) -> Path:
    folder = eyes.parent / name
    cut_tiles(str(eyes), folder, eyes.parent / "lesions.csv", how)
    return folder


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def brightest(path: Path) -> int:
    return int(pixels_of(path).max())


def test_tiles_show_what_their_folder_says(eyes: Path) -> None:
    folder = cut(eyes)
    with_lesion = list(folder.glob("*/lesion/*.png"))
    without = list(folder.glob("*/none/*.png"))
    assert len(with_lesion) == 5 * CUT.per_lesion
    assert len(without) >= 40
    assert {brightest(path) for path in with_lesion} == {255}
    assert {brightest(path) for path in without} == {100}
    assert {pixels_of(path).shape for path in folder.rglob("*.png")} == {(16, 16, 3)}
    # mostly of the eye, not of the black around it
    assert min(pixels_of(path).mean() for path in without) >= 24


def test_an_eye_and_its_tiles_are_in_the_same_split(eyes: Path, tmp_path: Path) -> None:
    folder, store = cut(eyes), open_store(str(tmp_path / "store"))
    for source, name in ((eyes, "eyes"), (folder, "tiles")):
        prepare(str(source), store, name)
    whole, tiles = load_index(store, "eyes"), load_index(store, "tiles")
    assert set(tiles.splits) == set(whole.splits) == {"train", "val"}
    for split, samples in tiles.splits.items():
        mine = {sample.key.rpartition("/")[2].rpartition("-")[0] for sample in samples.samples}
        assert mine <= {sample.key.removesuffix(".png") for sample in whole.splits[split].samples}


def test_the_same_input_gives_the_same_tiles_and_another_seed_others(eyes: Path) -> None:
    content = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}
        for folder in (cut(eyes, "one"), cut(eyes, "two"), cut(eyes, "three", Cut(tile=16, seed=1)))
    ]
    assert content[0] == content[1]
    assert content[0] != content[2]


@pytest.mark.parametrize(
    "options",
    [
        ["--split", "0.5"],
        ["--labels", "../people.csv", "--image-column", "photo", "--label-column", "level", "--patient-column", "who"],
        ["--labels", "../people.csv", "--image-column", "photo", "--label-column", "level", "--split-column", "fold"],
    ],
)
def test_tiles_are_split_as_the_images_are(eyes: Path, tmp_path: Path, options: list[str]) -> None:
    rows = [
        f"{number}_{side},{2 * (side == 'left' and number % 2 == 0)},p{number // 4},{'train' if number % 3 else 'val'}"
        for number in range(10)
        for side in ("left", "right")
    ]
    (tmp_path / "people.csv").write_text("\n".join(["photo,level,who,fold", *rows]))
    options = [str(tmp_path / "people.csv") if option == "../people.csv" else option for option in options]
    folder, store = tmp_path / "tiles", str(tmp_path / "store")
    for words in (
        ["prepare", str(eyes), "eyes", "--store", store, *options],
        ["tiles", str(eyes), str(folder), "--lesions", str(tmp_path / "lesions.csv"), "--tile", "16", *options],
    ):
        ran = CliRunner().invoke(data_app, words, catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
    whole = load_index(open_store(store), "eyes")
    for split, samples in whole.splits.items():
        seen = {path.name.rpartition("-")[0] for path in folder.glob(f"{split}/*/*.png")}
        assert seen == {sample.key.removesuffix(".png") for sample in samples.samples}


def test_a_part_that_cannot_validate_is_refused(eyes: Path) -> None:
    with pytest.raises(UsageError, match="--split 1: give the part that validates"):
        cut(eyes, how=Cut(tile=16, split=1.0))


@pytest.mark.parametrize("how", [Cut(tile=16, size=160), Cut(tile=16, size=60), Cut(tile=16, crop_retina=True)])
def test_places_go_with_their_image(eyes: Path, how: Cut) -> None:
    folder = cut(eyes, how=how)
    shown = [brightest(path) for path in folder.glob("*/lesion/*.png")]
    assert len(shown) == 5 * how.per_lesion
    assert min(shown) > 200
    assert max(brightest(path) for path in folder.glob("*/none/*.png")) < 140


@pytest.mark.parametrize("place", ["4000,30", "20,64.5", "-1,30"])
def test_a_lesion_outside_of_its_image_is_refused(eyes: Path, place: str) -> None:
    with (eyes.parent / "lesions.csv").open("a") as table:
        table.write(f"\n4_left,exudate,{place},3\n")
    x, y = place.split(",")
    said = rf"lesions\.csv:7: a lesion at x {x}, y {y} is outside of 4_left\.png, which has 80 x 64 pixels"
    with pytest.raises(UsageError, match=said):
        cut(eyes)
    assert not (eyes.parent / "tiles").exists()


@pytest.mark.parametrize("size", [None, 40])
def test_what_the_crop_cuts_off_is_left_out_and_counted(tmp_path: Path, size: int | None) -> None:
    """A disc of 80 pixels in a picture of 120 x 100."""
    eyes = tmp_path / "eyes"
    rows, columns = np.mgrid[:100, :120]
    for number, grade in enumerate("0011"):
        pixels = np.zeros((100, 120, 3), dtype=np.uint8)
        pixels[(rows - 50) ** 2 + (columns - 50) ** 2 < 40**2] = 100
        pixels[48:52, 48:52] = 255
        (eyes / grade).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(eyes / grade / f"eye{number}.png")
    rest = "".join(f"eye{number},dot,50,50,3\n" for number in range(4))
    (tmp_path / "lesions.csv").write_text(f"image,kind,x,y,radius\neye0,dot,115,50,3\neye1,dot,50,95,8\n{rest}")
    how = Cut(tile=8, crop_retina=True, size=size)
    found = cut_tiles(str(eyes), tmp_path / "tiles", tmp_path / "lesions.csv", how)
    assert found.cut_off == 2
    assert sum(classes["lesion"] for classes in found.splits.values()) == 4 * how.per_lesion
    assert min(brightest(path) for path in (tmp_path / "tiles").glob("*/lesion/*.png")) > 180


def test_a_circle_touches_a_tile_or_it_does_not() -> None:
    assert Spot(x=10, y=10, radius=2).touches((0, 0), 16)
    assert Spot(x=17, y=8, radius=2).touches((0, 0), 16)
    assert not Spot(x=19, y=8, radius=2).touches((0, 0), 16)
    assert not Spot(x=17.5, y=17.5, radius=2).touches((0, 0), 16), "a corner is further away than both sides"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,kind,x,y\n0_left,dot,1,2", "has no column radius"),
        ("image,kind,x,y,radius\n0_left,dot,1,two,3", r"lesions.csv:2: x, y and radius must be numbers"),
        ("image,kind,x,y,radius\n77_left,dot,1,2,3", "there is no image 77_left"),
        ("image,kind,x,y,radius\n", "no image to train on shows a lesion"),
    ],
)
def test_a_wrong_table_is_refused_and_leaves_nothing(eyes: Path, text: str, said: str) -> None:
    (eyes.parent / "lesions.csv").write_text(text)
    with pytest.raises(UsageError, match=said):
        cut(eyes)
    assert sorted(path.name for path in eyes.parent.iterdir()) == ["eyes", "lesions.csv"]


def test_a_folder_that_is_there_is_not_touched(eyes: Path) -> None:
    cut(eyes)
    with pytest.raises(UsageError, match="is there already"):
        cut(eyes)


def test_tiles_larger_than_an_image_and_damaged_images_are_named(eyes: Path) -> None:
    with pytest.raises(UsageError, match="80 x 64 pixels are less than a tile of 65"):
        cut(eyes, how=Cut(tile=65))
    (eyes / "3_right.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"3_right\.png: cannot be decoded"):
        cut(eyes)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read it"):
        read_spots(tmp_path / "none.csv")


def test_tiles_of_two_images_of_one_name_are_not_mixed(eyes: Path) -> None:
    (eyes / "labels.csv").unlink()
    for number, name in enumerate(("a", "b")):
        (eyes / name).mkdir()
        for side in ("left", "right"):
            (eyes / f"{number}_{side}.png").rename(eyes / name / f"0_{side}.png")
    (eyes.parent / "lesions.csv").write_text("image,kind,x,y,radius\n")
    with pytest.raises(UsageError, match="two images are called 0_left"):
        cut(eyes)


@pytest.mark.parametrize("row", ["0_left,exudate,nan,30,3", "0_left,exudate,20,inf,3", "0_left,exudate,20,30,-3"])
def test_places_that_cannot_be_are_refused(tmp_path: Path, row: str) -> None:
    table = tmp_path / "lesions.csv"
    table.write_text(f"image,kind,x,y,radius\n{row}\n")
    with pytest.raises(UsageError, match=r"lesions.csv:2: give a name, a finite x and y"):
        read_spots(table)


def test_a_table_may_begin_with_a_mark_and_name_its_image_last(tmp_path: Path) -> None:
    table = tmp_path / "lesions.csv"
    table.write_text("\ufeffkind,x,y,radius,image\nexudate,20,30,3,0_left\n")
    assert read_spots(table) == {"0_left": [Spot(x=20, y=30, radius=3)]}
    table.write_text("kind,x,y,radius,image\nexudate,20,30,3\n")
    with pytest.raises(UsageError, match="give a name"):
        read_spots(table)
