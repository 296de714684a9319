"""Finds the images of a source, and out of what it is: built in, class folders, or a table of labels."""

from __future__ import annotations

import posixpath

from starling.infra.errors import UsageError
from starling.trainer.data.sources.built_in import BUILT_IN
from starling.trainer.data.sources.class_folders import class_folders, looks_like_class_folders
from starling.trainer.data.sources.csv_columns import known_layout
from starling.trainer.data.sources.csv_labels import labelled_by
from starling.trainer.data.sources.csv_table import Table, read_table
from starling.trainer.data.sources.files import Listing, SourceFile, list_files, read_anywhere
from starling.trainer.data.sources.found import LabelTable, Source

TABLE_NAMES = ("trainLabels.csv", "train.csv", "labels.csv")
"""Of several tables in a source the first of these has the labels: Kaggle's and APTOS' names, and the plainest."""


def find_images(source: str, told: LabelTable | None = None) -> Source:
    """List the images of a word in BUILT_IN, or of a folder or URI (write `./digits` for a folder of that name).

    A table of labels is used if one is named, or if one lies in the source (alone, or with one of TABLE_NAMES) and the
    images are not in class folders, or if it is of a data set known by name. No image is read. UsageError says what is
    wrong and what would be right; a URI may raise the store's errors.
    """
    told = told or LabelTable()
    if source in BUILT_IN:
        if told.given:
            raise UsageError(f"{source} needs no table of labels: leave out --labels and the options for columns")
        return BUILT_IN[source]()
    listing = list_files(source)
    table = _table(listing, told)
    return class_folders(listing) if table is None else labelled_by(table, told, listing)


def _table(listing: Listing, told: LabelTable) -> Table | None:
    if told.path is not None:
        return _told(listing, told.path)
    tables = [file for file in listing.files if file.suffix == ".csv" and "/" not in file.path]
    in_folders = looks_like_class_folders(listing)
    named = [file for name in TABLE_NAMES for file in tables if file.path == name]
    if named or len(tables) == 1:
        table = _read((named or tables)[0], listing)
        return table if told.given or not in_folders or known_layout(table) else None
    if told.given or (tables and not in_folders):
        there = ", ".join(file.path for file in tables) or "no CSV file"
        raise UsageError(f"{listing.root} holds {there}: say which table has the labels with --labels FILE")
    return None


def _told(listing: Listing, path: str) -> Table:
    """--labels: within the source, or anywhere."""
    inside = {file.path: file for file in listing.files}.get(posixpath.normpath(path))
    if inside is not None:
        return _read(inside, listing)
    return read_table(posixpath.basename(path.partition("?")[0]), read_anywhere(path))


def _read(file: SourceFile, listing: Listing) -> Table:
    try:
        return read_table(file.path, file.read())
    except OSError as error:
        raise UsageError(f"cannot read {file.path} in {listing.root}: {error.strerror}") from error
