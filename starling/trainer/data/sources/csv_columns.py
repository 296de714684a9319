"""Which columns of a table say what: the layouts that Kaggle, APTOS and ISIC use, and any other that is clear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starling.infra.errors import UsageError
from starling.trainer.data.sources.csv_table import Row, Table
from starling.trainer.data.sources.found import LabelTable

IMAGE_COLUMNS = (
    "image",
    "image_name",
    "isic_id",
    "id_code",
    "image_id",
    "img",
    "filename",
    "file_name",
    "file",
    "path",
)
LABEL_COLUMNS = ("level", "target", "diagnosis", "label", "class", "class_name", "grade", "category")
PATIENT_COLUMNS = ("patient_id", "patient", "subject_id", "subject")
SPLIT_COLUMN = "split"
GRADED = {("image", "level"): "Kaggle diabetic retinopathy", ("id_code", "diagnosis"): "APTOS"}
"""Columns of the layouts whose labels are the grades 0 to 4."""
GRADES = ("0", "1", "2", "3", "4")
ISIC = {"MEL", "NV", "BCC", "AK", "AKIEC", "BKL", "DF", "VASC", "SCC", "UNK"}
"""Classes of the ISIC challenges, each a column of zeros and ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    layout: str
    """For people."""
    image: str
    label: str
    """For messages; several columns with a slash in between if each class has its own."""
    label_of: Callable[[Row], str | None]
    """A row's class; None if it has none. Raises UsageError for one that cannot be."""
    patient: str | None
    split: str | None


def known_layout(table: Table) -> bool:
    """Whether its columns are those of a data set we know by name."""
    columns = set(table.columns)
    return any(columns >= {*pair} for pair in GRADED) or ("image" in columns and len(columns & ISIC) > 1)


def find_columns(table: Table, told: LabelTable) -> Columns:
    """Those the user named, else the first pair that is known. UsageError lists the columns if none is clear."""
    for column in (told.image_column, told.label_column, told.patient_column, told.split_column):
        if column is not None and column not in table.columns:
            raise UsageError(f"{table.name} has no column {column!r}; it has {', '.join(table.columns)}")
    graded = [pair for pair in GRADED if {*pair} <= {*table.columns}]
    preferred = graded[0] if graded else (None, None)
    image = told.image_column or preferred[0] or _first(IMAGE_COLUMNS, table)
    label = told.label_column or (preferred[1] if image == preferred[0] else None)
    patient = told.patient_column or _first(PATIENT_COLUMNS, table)
    split = told.split_column or (SPLIT_COLUMN if SPLIT_COLUMN in table.columns else None)
    classes = _one_hot(table, image, {patient, split}) if label is None else []
    label = label or (None if classes else _first(LABEL_COLUMNS, table))
    if image is None or (label is None and not classes):
        missing = "images" if image is None else "labels"
        raise UsageError(
            f"{table.name}: no column is clearly the one of the {missing} (there are {', '.join(table.columns)}); "
            "name it with --image-column and --label-column"
        )
    layout = GRADED.get((image, label or ""), "CSV")
    if classes:
        layout = "ISIC" if ISIC.intersection(classes) else "CSV with a column for each class"
    return Columns(
        layout=layout,
        image=image,
        label=label or "/".join(classes),
        label_of=_hot(table, classes) if label is None else _plain(table, label, grades=(image, label) in GRADED),
        patient=patient,
        split=split,
    )


def _first(candidates: tuple[str, ...], table: Table) -> str | None:
    by_small_letters = {column.lower(): column for column in reversed(table.columns)}
    return next((by_small_letters[name] for name in candidates if name in by_small_letters), None)


def _one_hot(table: Table, image: str | None, taken: set[str | None]) -> list[str]:
    """Columns that are a class each: ISIC's names, or all others (but for what is `taken`, and for names of patients
    and splits) if they hold nothing but zeros and ones and none is called like a label."""
    if known := [column for column in table.columns if column in ISIC]:
        return known if len(known) > 1 else []
    if _first(LABEL_COLUMNS, table) is not None:
        return []  # a label of zeros and ones beside other such columns
    no_classes = {image, SPLIT_COLUMN, *taken}
    others = [name for name in table.columns if name not in no_classes and name.lower() not in PATIENT_COLUMNS]
    binary = all(row.values[column] in ("0", "1", "0.0", "1.0") for column in others for row in table.rows)
    return others if len(others) > 1 and binary and image is not None else []


def _hot(table: Table, classes: list[str]) -> Callable[[Row], str | None]:
    def label_of(row: Row) -> str | None:
        values = [_number(table, row, column) for column in classes]
        hot = [column for column, value in zip(classes, values, strict=True) if value == 1]
        if len(hot) != 1 or any(value not in (0, 1) for value in values):
            said = ", ".join(f"{column}={row.values[column]}" for column in classes)
            raise UsageError(
                f"{table.name}, line {row.line}: exactly one of {', '.join(classes)} should be 1 and the others 0 "
                f"({said})"
            )
        return hot[0]

    return label_of


def _number(table: Table, row: Row, column: str) -> float:
    try:
        return float(row.values[column])
    except ValueError as error:
        raise UsageError(f"{table.name}, line {row.line}: {column} is {row.values[column]!r}, not 0 or 1") from error


def _plain(table: Table, column: str, *, grades: bool) -> Callable[[Row], str | None]:
    def label_of(row: Row) -> str | None:
        label = _whole(row.values[column])
        if grades and label and label not in GRADES:
            raise UsageError(f"{table.name}, line {row.line}: {column} is {label}; it should be a grade from 0 to 4")
        return label or None

    return label_of


def _whole(value: str) -> str:
    """2.0 -> 2: spreadsheets and pandas write whole numbers so where a value is missing."""
    return value.removesuffix(".0") if value.removesuffix(".0").removeprefix("-").isdecimal() else value
