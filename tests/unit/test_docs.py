"""The documentation says what is: its links lead somewhere, its files exist, its spec page is complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from starling.orchestrator.spec import schema

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("starling", "tests", "docs", "configs", "examples", "benchmarks", "chaos", "demo", ".ci")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".cfg", ""}

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:starling|tests|docs|configs|examples|demo|benchmarks|chaos)/[\w./-]+)`")
MACHINE_PATH = re.compile(r"(?<![\w>.}$)-])/(?:work|root|home/[a-z]\w*)/\w")
TEMPORARY_PATH = re.compile(r"(?<![\w>.}$])/tmp\b")


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tracked_text() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path


def leaf_keys(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every key of the schema as (dotted path, its schema, whether it is required), sections included."""
    for name, value in section["properties"].items():
        required = name in section.get("required", [])
        if required and "const" in value:
            continue  # which member of a union this is; the page tells it once, with the default one
        yield prefix + name, value, required
        for choice in [value, *value.get("anyOf", [])]:
            if "$ref" in choice:
                yield from leaf_keys(SCHEMA["$defs"][choice["$ref"].rpartition("/")[2]], f"{prefix}{name}.")
            elif "$ref" in choice.get("items", {}):
                yield from leaf_keys(SCHEMA["$defs"][choice["items"]["$ref"].rpartition("/")[2]], f"{prefix}{name}[].")


SCHEMA = schema()
KEYS = list(leaf_keys(SCHEMA))


def spec_rows() -> dict[str, list[str]]:
    page = (ROOT / "docs" / "spec.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line[:3] == "| `"]
    return {row[0].strip("`"): row for row in rows}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(without_code(page)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(other), f"{page.name}: {target}; there are {sorted(anchors(other))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    missing = [name for name in NAMED_FILE.findall(page.read_text()) if not (ROOT / name).exists()]
    assert not missing, missing


def test_no_text_holds_a_path_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked_text()
        for match in MACHINE_PATH.finditer(path.read_text())
    ]
    assert not found, found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_no_temporary_paths(page: Path) -> None:
    assert not TEMPORARY_PATH.search(page.read_text())


def test_the_spec_page_lists_exactly_the_keys_there_are() -> None:
    assert set(spec_rows()) == {key for key, *_ in KEYS}


@pytest.mark.parametrize(("key", "value", "required"), KEYS, ids=[key for key, *_ in KEYS])
def test_the_spec_page_tells_the_right_default(key: str, value: dict[str, Any], required: bool) -> None:
    shown = spec_rows()[key][2]
    if required:
        assert shown == "**required**"
    elif shown != "see below":
        default = value.get("default", [] if value.get("type") == "array" else {})
        assert shown == f"`{json.dumps(default)}`"
    else:
        assert any(other.startswith(f"{key}.") for other, *_ in KEYS), "only a section may put its default off"
