"""A CSV file as rows that know their line number. Commas, semicolons or tabs; UTF-8, with or without a mark."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from starling.infra.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    line: int
    """In the file, from 1; the header is line 1."""
    values: dict[str, str]
    """Column -> value, without spaces around it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    name: str
    """For messages."""
    columns: list[str]
    rows: list[Row]


def read_table(name: str, data: bytes) -> Table:
    """UsageError names the line that is no row of this table."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{name}, line {line}: this is no UTF-8 text; save the table as CSV in UTF-8") from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    columns: list[str] = []
    try:
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue  # an empty line
            if not columns:
                columns = _header(name, values)
            else:
                rows.append(_row(name, reader.line_num, columns, values))
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num}: {error}") from error
    if not rows:
        raise UsageError(f"{name} has no rows; it should have a header, like image,level, and a line for each image")
    return Table(name=name, columns=columns, rows=rows)


def _header(name: str, columns: list[str]) -> list[str]:
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise UsageError(f"{name}: two columns are called {twice!r}")
    return columns


def _row(name: str, line: int, columns: list[str], values: list[str]) -> Row:
    if len(values) != len(columns):
        raise UsageError(f"{name}, line {line}: {len(values)} values, but the header has {len(columns)} columns")
    return Row(line=line, values=dict(zip(columns, values, strict=True)))
