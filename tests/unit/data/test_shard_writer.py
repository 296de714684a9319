from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

from starling.trainer.data.shard import ShardWriter

MEMBERS = [("train/cat/1.png", b"x"), ("train/" + "long " * 60 + "/größe.png", bytes(range(256)) * 4), ("empty", b"")]


def write(path: Path) -> tuple[list[int], str]:
    with ShardWriter(path) as shard:
        return [shard.add(name, data) for name, data in MEMBERS], shard.finish()


def test_a_shard_is_a_tar_file(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert [(info.name, archive.extractfile(info).read()) for info in archive] == MEMBERS  # type: ignore[union-attr]


def test_offsets_and_hash_are_those_of_the_file(tmp_path: Path) -> None:
    offsets, sha256 = write(tmp_path / "a.tar")
    content = (tmp_path / "a.tar").read_bytes()
    assert [content[offset : offset + len(data)] for offset, (_, data) in zip(offsets, MEMBERS, strict=True)] == [
        data for _, data in MEMBERS
    ]
    assert sha256 == hashlib.sha256(content).hexdigest()


def test_the_same_members_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.tar") == write(tmp_path / "b.tar")
