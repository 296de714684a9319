"""Images whose classes stand in a table: rows matched to files, and everything that does not match accounted for."""

from __future__ import annotations

import itertools
import posixpath
from collections import Counter, defaultdict
from dataclasses import dataclass

from starling.infra.errors import UsageError
from starling.trainer.data.index import LeftOut, Why
from starling.trainer.data.sources.csv_columns import Columns, find_columns
from starling.trainer.data.sources.csv_table import Row, Table
from starling.trainer.data.sources.files import Listing, SourceFile
from starling.trainer.data.sources.found import SUFFIXES, FoundImage, LabelTable, Source

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What may stand in a column of splits, in small letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Labelled:
    """A row that says something about an image."""

    row: Row
    class_name: str
    split: str | None


def labelled_by(table: Table, told: LabelTable, listing: Listing) -> Source:
    """UsageError for contradictions, impossible labels, and a table that is clearly not of these images."""
    columns = find_columns(table, told)
    matching = _Matching(table, columns, listing)
    images = [matching.image(file, labelled) for file, labelled in matching.found.items()]
    if not images:
        raise UsageError(f"no image of {table.name} has a label in column {columns.label}")
    others = Counter(file.suffix or "no suffix" for file in listing.files if file.suffix not in SUFFIXES)
    return Source(
        description=listing.root,
        layout=f"{columns.layout}: {table.name}, {columns.image} and {columns.label}",
        images=images,
        ignored={kind: count for kind, count in sorted((listing.ignored + others).items()) if count},
        left_out=matching.left_out + matching.unlabelled(),
        split_by="column" if columns.split else "hash",
    )


class _Matching:
    """Rows and files brought together."""

    def __init__(self, table: Table, columns: Columns, listing: Listing) -> None:
        self.left_out: list[LeftOut] = []
        self.found: dict[SourceFile, _Labelled] = {}
        self._table = table
        self._columns = columns
        self._images = _Images([file for file in listing.files if file.suffix in SUFFIXES], listing.root)
        self._empty: set[SourceFile] = set()
        self._missing: list[Row] = []
        for row in table.rows:
            self._take(row)
        self._check_missing()

    def image(self, file: SourceFile, labelled: _Labelled) -> FoundImage:
        patient = self._columns.patient
        return FoundImage(
            class_name=labelled.class_name,
            key=file.path,
            split=labelled.split,
            patient=(labelled.row.values[patient] or None) if patient else None,
            size=file.size,
            stamp=file.stamp,
            read=file.read,
        )

    def unlabelled(self) -> list[LeftOut]:
        """Images that no row speaks of."""
        left = [file for file in self._images.files if file not in self.found and file not in self._empty]
        reason = f"{self._table.name} has no row for it"
        return [LeftOut(key=file.path, why=Why.UNLABELLED, reason=reason) for file in left]

    def _take(self, row: Row) -> None:
        name = row.values[self._columns.image]
        if not name:
            raise UsageError(f"{self._table.name}, line {row.line}: {self._columns.image} is empty")
        label = self._columns.label_of(row)
        file = self._images.named(name, f"{self._table.name}, line {row.line}")
        if file is None:
            self._missing.append(row)
            reason = f"{self._table.name}, line {row.line} names it, and it is not there"
            self.left_out.append(LeftOut(key=name, why=Why.MISSING, reason=reason))
        elif label is None:
            self._empty.add(file)
            reason = f"{self._table.name}, line {row.line}: {self._columns.label} is empty"
            self.left_out.append(LeftOut(key=file.path, why=Why.UNLABELLED, reason=reason))
        else:
            self._add(file, _Labelled(row=row, class_name=label, split=self._split(row)))

    def _add(self, file: SourceFile, labelled: _Labelled) -> None:
        first = self.found.setdefault(file, labelled)
        if first is labelled:
            return
        here, before = labelled.row.line, first.row.line
        if (first.class_name, first.split) != (labelled.class_name, labelled.split):
            raise UsageError(
                f"{self._table.name}: lines {before} and {here} contradict each other about "
                f"{labelled.row.values[self._columns.image]}: {_said(first)} and {_said(labelled)}"
            )
        reason = f"{self._table.name}, line {here} says again what line {before} said"
        self.left_out.append(LeftOut(key=file.path, why=Why.DUPLICATE, reason=reason))

    def _split(self, row: Row) -> str | None:
        if self._columns.split is None:
            return None
        value = row.values[self._columns.split]
        if value.lower() not in SPLITS:
            raise UsageError(
                f"{self._table.name}, line {row.line}: {self._columns.split} is {value!r}; "
                "it should be train, val or test"
            )
        return SPLITS[value.lower()]

    def _check_missing(self) -> None:
        if 2 * len(self._missing) <= len(self._table.rows):
            return
        first = self._missing[0]
        raise UsageError(
            f"{len(self._missing)} of the {len(self._table.rows)} images in column {self._columns.image!r} of "
            f"{self._table.name} are not in {self._images.root} (the first: {first.values[self._columns.image]!r}, "
            f"line {first.line}). Tried as a path, as a file name, and with {', '.join(SUFFIXES)} behind it; "
            f"{len(self._images.files)} images are there"
            + (f", like {self._images.files[0].path}" if self._images.files else "")
            + ". Is --image-column right, and is this the table of these images?"
        )


def _said(labelled: _Labelled) -> str:
    return labelled.class_name + (f" ({labelled.split})" if labelled.split else "")


class _Images:
    """The images of a source, found by whatever a table calls them."""

    def __init__(self, files: list[SourceFile], root: str) -> None:
        self.files = files
        self.root = root
        self._by_path = {file.path: file for file in files}
        self._by_name: dict[str, list[SourceFile]] = defaultdict(list)
        for file in files:
            self._by_name[file.name].append(file)
            self._by_name[posixpath.splitext(file.name)[0]].append(file)

    def named(self, name: str, where: str) -> SourceFile | None:
        """By its path, by its name, or by its name without suffix. UsageError if several files could be meant."""
        path = posixpath.normpath(name.replace("\\", "/"))
        if path in self._by_path:
            return self._by_path[path]
        base = posixpath.basename(path)
        stem = posixpath.splitext(base)[0] if posixpath.splitext(base)[1].lower() in SUFFIXES else base
        found = self._by_name.get(base) or self._by_name.get(stem, [])
        if len(found) > 1:  # a path from elsewhere: the file that shares most of its end is meant
            shared = [_shared_end(_stem(file.path), _stem(path)) for file in found]
            found = [file for file, segments in zip(found, shared, strict=True) if segments == max(shared)]
        if len(found) > 1:
            raise UsageError(
                f"{where}: {name!r} may be {found[0].path} or {found[1].path} of {self.root}: "
                "write the path into the table, or give the folder that is meant"
            )
        return found[0] if found else None


def _shared_end(one: str, other: str) -> int:
    """How many of the last segments of two paths are the same."""
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _stem(path: str) -> str:
    base, suffix = posixpath.splitext(path)
    return base if suffix.lower() in SUFFIXES else path
