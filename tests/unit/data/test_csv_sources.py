from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from starling.infra.errors import UsageError
from starling.trainer.data.index import Why
from starling.trainer.data.plan import sorted_classes
from starling.trainer.data.sources.found import LabelTable, Source
from starling.trainer.data.sources.listing import find_images

WriteImage = Callable[..., Path]
Write = Callable[..., Path]

EYES = ("1_left", "1_right", "2_left", "2_right")
GRADES = "image,level\n1_left,0\n1_right,4\n2_left,0\n2_right,2\n"


@pytest.fixture
def eyes(tmp_path: Path, write_image: WriteImage) -> Path:
    """Four images without class folders."""
    for name in EYES:
        write_image(f"{name}.jpeg")
    return tmp_path / "images"


@pytest.fixture
def table(eyes: Path) -> Callable[[str], Path]:
    def write(text: str, name: str = "labels.csv") -> Path:
        (eyes / name).write_text(text)
        return eyes

    return write


def classes(source: Source) -> dict[str, str]:
    return {image.key: image.class_name for image in source.images}


def left_out(source: Source) -> dict[str, tuple[Why, str]]:
    return {entry.key: (entry.why, entry.reason) for entry in source.left_out}


def test_a_table_alone_beside_images_is_used(table: Write) -> None:
    source = find_images(str(table(GRADES)))
    assert classes(source) == {"1_left.jpeg": "0", "1_right.jpeg": "4", "2_left.jpeg": "0", "2_right.jpeg": "2"}
    assert source.layout == "Kaggle diabetic retinopathy: labels.csv, image and level"
    assert (source.left_out, source.ignored) == ([], {".csv": 1})


@pytest.mark.parametrize(
    ("text", "layout", "found"),
    [
        ("id_code,diagnosis\n1_left,1\n1_right,0\n2_left,3\n2_right,3\n", "APTOS", ["1", "0", "3", "3"]),
        ("image,MEL,NV,BKL\n1_left,1.0,0.0,0.0\n1_right,0,1,0\n2_left,0,0,1\n2_right,0,1,0\n", "ISIC", None),
        ("image_name,sex,target\n1_left,f,0\n1_right,m,1\n2_left,f,0\n2_right,m,1\n", "CSV", ["0", "1", "0", "1"]),
        ("isic_id,diagnosis\n1_left,nevus\n1_right,melanoma\n2_left,nevus\n2_right,nevus\n", "CSV", None),
        ("filename;label\n1_left.jpeg;a\n1_right.jpeg;b\n2_left.jpeg;a\n2_right.jpeg;a\n", "CSV", list("abaa")),
        ("\ufefffile\tclass\nx/1_left.jpeg\ta\n1_right\tb\n2_left\ta\n2_right\tb\n", "CSV", list("abab")),
        ("image,cat,dog\n1_left,1,0\n1_right,0,1\n2_left,1,0\n2_right,1,0\n", "CSV with a column for each class", None),
        ("image,level\n1_left,0.0\n1_right,4.0\n2_left,0.0\n2_right,2.0\n", "Kaggle", list("0402")),
    ],
)
def test_layouts_are_told_from_the_columns(table: Write, text: str, layout: str, found: list[str] | None) -> None:
    source = find_images(str(table(text)))
    assert source.layout.startswith(layout)
    assert source.left_out == []
    if found is not None:
        assert list(classes(source).values()) == found
    elif layout == "ISIC":
        assert list(classes(source).values()) == ["MEL", "NV", "BKL", "NV"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("patient_id", {}),
        ("Subject", {}),
        ("patient_id", {"patient_column": "patient_id"}),
        ("person", {"patient_column": "person"}),
        ("split", {}),
        ("fold", {"split_column": "fold"}),
        ("fold", {"split_column": "fold", "image_column": "image"}),
    ],
)
def test_patients_and_splits_beside_a_column_for_each_class_are_no_classes(
    table: Write, more: str, told: dict[str, str]
) -> None:
    values = ["train", "train", "val", "val"] if more in ("split", "fold") else ["0", "0", "1", "1"]
    names = ("1_left,1,0", "1_right,0,1", "2_left,1,0", "2_right,0,1")
    rows = [f"{row},{value}" for row, value in zip(names, values, strict=True)]
    source = find_images(str(table("\n".join([f"image,cat,dog,{more}", *rows]))), LabelTable(**told))
    assert list(classes(source).values()) == ["cat", "dog", "cat", "dog"]
    is_split = more in ("split", "fold")
    assert [image.split for image in source.images] == (values if is_split else [None] * 4)
    assert [image.patient for image in source.images] == ([None] * 4 if is_split else values)


def test_columns_can_be_named(table: Write) -> None:
    root = table("which,truth,level\n1_left,x,0\n1_right,y,1\n2_left,x,2\n2_right,y,3\n")
    with pytest.raises(UsageError, match=r"no column is clearly the one of the images \(there are which, truth, level"):
        find_images(str(root))
    source = find_images(str(root), LabelTable(image_column="which", label_column="truth"))
    assert set(classes(source).values()) == {"x", "y"}
    with pytest.raises(UsageError, match="no column 'fact'; it has which, truth, level"):
        find_images(str(root), LabelTable(label_column="fact"))


def test_the_table_may_lie_elsewhere(eyes: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.csv").write_text(GRADES)
    assert len(find_images(str(eyes), LabelTable(path=str(tmp_path / "elsewhere.csv"))).images) == 4
    with pytest.raises(UsageError, match=r"cannot read .*/nowhere.csv: No such file"):
        find_images(str(eyes), LabelTable(path=str(tmp_path / "nowhere.csv")))


def test_several_tables_are_not_guessed_between(table: Write) -> None:
    table(GRADES, "one.csv")
    root = table(GRADES, "two.csv")
    with pytest.raises(UsageError, match=r"holds one.csv, two.csv: say which table .* --labels"):
        find_images(str(root))
    assert len(find_images(str(root), LabelTable(path="two.csv")).images) == 4


def test_of_several_tables_the_one_with_a_usual_name_has_the_labels(table: Write) -> None:
    table("image,x,y\n1_left,7,9\n", "lesions.csv")
    table("id_code,diagnosis\n1_left,0\n1_right,1\n2_left,0\n", "train.csv")
    assert find_images(str(table("id_code\n2_right\n", "test.csv"))).layout.startswith("APTOS: train.csv")
    assert find_images(str(table(GRADES, "trainLabels.csv"))).layout.startswith("Kaggle diabetic retinopathy")


def test_class_folders_win_over_a_table_of_something_else(images: Path) -> None:
    (images / "sizes.csv").write_text("image,width\n00.png,5\n")
    assert find_images(str(images)).layout == "class folders"


def test_folders_that_only_keep_images_are_no_classes(write_image: WriteImage) -> None:
    for path in ("train_images/a.png", "train_images/b.png", "test_images/c.png"):
        root = write_image(path).parents[1]
    (root / "train.csv").write_text("id_code,diagnosis\na,0\nb,1\n")
    source = find_images(str(root))
    assert set(classes(source)) == {"train_images/a.png", "train_images/b.png"}
    assert left_out(source) == {"test_images/c.png": (Why.UNLABELLED, "train.csv has no row for it")}


def test_all_that_does_not_match_is_accounted_for(table: Write, write_image: WriteImage) -> None:
    write_image("3_left.jpeg")
    source = find_images(str(table(GRADES + "1_left,0\n9_left,1\n3_left,\n")))
    assert left_out(source) == {
        "1_left.jpeg": (Why.DUPLICATE, "labels.csv, line 6 says again what line 2 said"),
        "9_left": (Why.MISSING, "labels.csv, line 7 names it, and it is not there"),
        "3_left.jpeg": (Why.UNLABELLED, "labels.csv, line 8: level is empty"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,level\n1_left,0\n1_right,5\n", r"labels.csv, line 3: level is 5; it should be a grade from 0 to 4"),
        ("image,level\n1_left,0\n1_right,mild\n", r"line 3: level is mild; it should be a grade"),
        ("image,level\n1_left,0\n1_left,1\n", r"lines 2 and 3 contradict each other about 1_left: 0 and 1"),
        ("image,level,split\n1_left,0,train\n1_right,1,later\n", r"line 3: split is 'later'; it should be train, val"),
        ("image,MEL,NV\n1_left,1,0\n1_right,1,1\n", r"line 3: exactly one of MEL, NV should be 1.*MEL=1, NV=1"),
        ("image,MEL,NV\n1_left,1,0\n1_right,yes,1\n", r"line 3: MEL is 'yes', not 0 or 1"),
        ("image,level\n1_left,0,7\n", r"line 2: 3 values, but the header has 2 columns"),
        ("image,level\n,0\n", r"line 2: image is empty"),
        ("image,image\n1_left,0\n", r"two columns are called 'image'"),
        ("image,level\n", r"labels.csv has no rows"),
        ('image,level\n"1_left,0\n', r"labels.csv, line 2: unexpected end of data"),
        (
            "image,level\na,0\nb,1\n1_left,2\n",
            r"2 of the 3 images in column 'image' of labels.csv are not in .*'a'.*\.png",
        ),
    ],
)
def test_what_cannot_be_right_is_named_with_its_line(table: Write, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_images(str(table(text)))


def test_a_table_that_is_no_text_is_named_with_its_line(eyes: Path) -> None:
    (eyes / "labels.csv").write_bytes(b"image,level\n1_left,0\n\xff\xfe,1\n")
    with pytest.raises(UsageError, match=r"labels.csv, line 3: this is no UTF-8 text"):
        find_images(str(eyes))


def test_a_name_that_may_mean_two_files_is_refused_unless_a_path_decides(write_image: WriteImage) -> None:
    for path in ("a/1.png", "b/1.png", "b/2.png"):
        root = write_image(path).parents[1]
    table = root.parent / "labels.csv"
    table.write_text("image,label\n1,x\n2,y\n")
    told = LabelTable(path=str(table))
    with pytest.raises(UsageError, match=r"labels.csv, line 2: '1' may be a/1.png or b/1.png"):
        find_images(str(root), told)
    table.write_text("image,label\n/data/b/1.png,x\nb/2,y\na/1.png,y\n")
    assert classes(find_images(str(root), told)) == {"b/1.png": "x", "b/2.png": "y", "a/1.png": "y"}


@pytest.mark.parametrize("source", ["digits", "rendered-fundus"])
def test_what_is_built_in_needs_no_table(source: str) -> None:
    with pytest.raises(UsageError, match=f"{source} needs no table of labels"):
        find_images(source, LabelTable(path="labels.csv"))


def test_numbers_are_sorted_as_numbers_and_names_as_names() -> None:
    assert sorted_classes({"10", "2", "-1"}) == ["-1", "2", "10"]
    assert sorted_classes({"10", "2", "x"}) == ["10", "2", "x"]


def test_a_label_of_zeros_and_ones_may_stand_beside_other_such_columns(table: Write) -> None:
    root = table("image,label,blurred\n1_left,0,0\n1_right,1,1\n2_left,0,1\n2_right,1,0\n")
    found = classes(find_images(str(root)))
    assert found == {"1_left.jpeg": "0", "1_right.jpeg": "1", "2_left.jpeg": "0", "2_right.jpeg": "1"}


def test_classes_of_thousands_of_digits_are_sorted() -> None:
    assert sorted_classes({"9" * 5000, "10"}) == ["10", "9" * 5000]


@pytest.mark.parametrize("uri", ["s3://[x/y", "s3://b!/y", "s3:///y"])
def test_a_source_that_is_no_bucket_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="bad source"):
        find_images(uri)
