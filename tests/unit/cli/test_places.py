"""`put` and `get` on this computer, and the words that name a node's path."""

from __future__ import annotations

from pathlib import Path

import pytest

from starling.cli.places import LocalPlace
from starling.cli.remote import split_node
from starling.infra.errors import UsageError


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    (tmp_path / "node").mkdir()
    return LocalPlace(node="r.0.0", folder=tmp_path / "node")


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_file_takes_the_name_it_is_given(place: LocalPlace, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("one")
    place.put([source], "work/b.csv")
    source.write_text("two")
    place.put([source], "work/b.csv")
    place.put([source], "work")
    place.put([source], "more/")
    assert files_below(place.folder) == ["more/a.csv", "work/a.csv", "work/b.csv"]
    assert (place.folder / "work" / "b.csv").read_text() == "two"


def test_several_files_go_into_a_folder(place: LocalPlace, tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("a", "b")]
    for source in sources:
        source.write_text(source.name)
    assert place.put(sources, "both") == [str(place.folder / "both" / name) for name in ("a", "b")]


def test_a_folder_comes_with_what_is_in_it_but_no_links(place: LocalPlace, tmp_path: Path) -> None:
    (place.folder / "out" / "deep").mkdir(parents=True)
    (place.folder / "out" / "deep" / "x").write_text("x")
    (place.folder / "out" / "link").symlink_to("/etc/hostname")
    assert place.get("out", tmp_path / "here") == 1
    assert files_below(tmp_path / "here") == ["out/deep/x"]
    assert place.get("out/deep/x", tmp_path / "here") == 1
    assert files_below(tmp_path / "here") == ["out/deep/x", "x"]
    with pytest.raises(UsageError, match="nothing is not there"):
        place.get("nothing", tmp_path / "here")


@pytest.mark.parametrize(
    ("word", "node", "path"),
    [
        ("work/x", None, "work/x"),
        ("0.1:work/x", "r.0.1", "work/x"),
        ("r.0.1:/data/x", "r.0.1", "/data/x"),
        ("r.0.1:a:b", "r.0.1", "a:b"),
    ],
)
def test_a_path_may_name_its_node(word: str, node: str | None, path: str) -> None:
    assert split_node("r", word) == (node, path)


@pytest.mark.parametrize("word", ["other.0.1:x", "here:x", "r.0.1:", ""])
def test_what_is_no_path_of_a_node_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        split_node("r", word)
