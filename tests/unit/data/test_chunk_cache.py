from __future__ import annotations

import errno
import fcntl
import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from starling.infra.errors import StoreUnavailable
from starling.infra.store.streaming import Take
from starling.trainer.data import cache as cache_module
from starling.trainer.data.cache import ChunkCache
from starling.trainer.data.chunks import Chunk
from starling.trainer.data.usage import Usage

SIZE = 5000


class Source:
    """Hands out a chunk's bytes in small pieces, and counts how often it was asked."""

    def __init__(self, number: int = 0) -> None:
        self.chunk = Chunk("train/shard.tar", "a" * 64, number * SIZE, (number + 1) * SIZE)
        self.content = random.Random(number).randbytes(SIZE)
        self.asked = 0

    def __call__(self, take: Take) -> None:
        self.asked += 1
        for start in range(0, SIZE, 999):
            take(memoryview(self.content)[start : start + 999])


def path_of(folder: Path, source: Source) -> Path:
    return folder / source.chunk.name


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def test_a_chunk_is_downloaded_once_whoever_asks(tmp_path: Path) -> None:
    source = Source()
    for _ in range(3):
        held = ChunkCache(tmp_path, 10 * SIZE).fetch(source.chunk, source)
        assert bytes(held.data) == source.content
    assert source.asked == 1


@pytest.mark.parametrize("left", [b"", b"half", bytes(3 * SIZE)])
def test_what_a_killed_download_left_is_not_trusted(tmp_path: Path, left: bytes) -> None:
    source = Source()
    aside = path_of(tmp_path, source).with_name(path_of(tmp_path, source).name + ".part")
    aside.parent.mkdir(parents=True)
    aside.write_bytes(left)
    assert bytes(ChunkCache(tmp_path, 10 * SIZE).fetch(source.chunk, source).data) == source.content
    assert not aside.exists()


def test_a_cut_copy_is_fetched_again(tmp_path: Path) -> None:
    source, cache = Source(), ChunkCache(tmp_path, 10 * SIZE)
    cache.fetch(source.chunk, source)
    os.truncate(path_of(tmp_path, source), SIZE - 1)
    assert bytes(cache.fetch(source.chunk, source).data) == source.content


def test_a_damaged_copy_is_replaced_once_and_then_the_mended_one_is_taken(tmp_path: Path) -> None:
    source, cache = Source(), ChunkCache(tmp_path, 10 * SIZE)
    path = path_of(tmp_path, source)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(SIZE))
    damaged = [cache.fetch(source.chunk, source) for _ in range(2)]
    assert source.asked == 0
    mended = [cache.fetch(source.chunk, source, instead_of=held) for held in damaged]
    assert [bytes(held.data) for held in mended] == [source.content] * 2
    assert source.asked == 1
    assert bytes(damaged[0].data) == bytes(SIZE), "who reads the old copy goes on reading it"


def test_the_bound_holds_and_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache, sources = ChunkCache(tmp_path, 12 * SIZE), [Source(number) for number in range(40)]
    for number, source in enumerate(sources[:10]):
        cache.fetch(source.chunk, source)
        os.utime(path_of(tmp_path, source), (number, number))
    assert cache.find(sources[0].chunk)
    for source in sources[10:14]:
        cache.fetch(source.chunk, source)
        assert on_disk(tmp_path) <= 12 * SIZE - cache.mapped_limit
    assert path_of(tmp_path, sources[0]).exists()
    assert not path_of(tmp_path, sources[1]).exists()
    for source in sources[14:]:
        cache.fetch(source.chunk, source)
        assert on_disk(tmp_path) <= 12 * SIZE - cache.mapped_limit


def test_an_evicted_chunk_can_be_read_to_its_end(tmp_path: Path) -> None:
    cache, first = ChunkCache(tmp_path, 2 * SIZE), Source()
    held = cache.fetch(first.chunk, first)
    for number in range(1, 6):
        other = Source(number)
        cache.fetch(other.chunk, other)
    assert cache.find(first.chunk) is None
    assert bytes(held.data) == first.content


def test_a_download_under_way_is_not_evicted(tmp_path: Path) -> None:
    cache, slow, other = ChunkCache(tmp_path, 3 * SIZE), Source(), Source(1)

    def meanwhile(take: Take) -> None:
        for number in range(2, 6):
            one = Source(number)
            cache.fetch(one.chunk, one)
        slow(take)

    cache.fetch(other.chunk, other)
    assert bytes(cache.fetch(slow.chunk, meanwhile).data) == slow.content
    assert on_disk(tmp_path) <= 2 * SIZE
    assert cache.find(slow.chunk)


def test_the_bound_is_the_node_s_and_a_restart_counts_what_is_there(tmp_path: Path) -> None:
    for number in range(8):
        source = Source(number)
        ChunkCache(tmp_path, 3 * SIZE).fetch(source.chunk, source)
        assert on_disk(tmp_path) <= 3 * SIZE
    (tmp_path / "usage").write_bytes(b"")  # killed while it was being written
    source = Source(9)
    ChunkCache(tmp_path, 3 * SIZE).fetch(source.chunk, source)
    assert on_disk(tmp_path) <= 3 * SIZE


def test_whoever_is_killed_while_a_file_gets_its_size_leaves_a_sum_that_is_not_too_small(tmp_path: Path) -> None:
    usage, part = Usage(tmp_path), tmp_path / "part"
    part.touch()
    with part.open("rb") as unwritable, pytest.raises(io.UnsupportedOperation):
        usage.allot(unwritable, SIZE, 10 * SIZE)
    assert int((tmp_path / "usage").read_bytes()) == SIZE


def test_without_a_bound_half_of_what_is_free_is_taken(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    assert 0.4 * free < ChunkCache(tmp_path).limit < 0.6 * free


def test_a_chunk_for_which_there_is_no_room_is_read_all_the_same(tmp_path: Path) -> None:
    source = Source()
    held = ChunkCache(tmp_path, SIZE - 1).fetch(source.chunk, source)
    assert bytes(held.data) == source.content
    assert on_disk(tmp_path) == 0


def refusing(times: int, error: int) -> Callable[..., None]:
    """A disk that takes nothing the first few times; a full one cannot be had without being root."""
    left, write = [times], cache_module._write

    def refuse(file: object, piece: memoryview) -> None:
        if left[0]:
            left[0] -= 1
            raise cache_module._CannotWriteError(OSError(error, os.strerror(error)))
        write(file, piece)  # type: ignore[arg-type]

    return refuse


@pytest.mark.parametrize(("times", "kept"), [(1, 1), (2, 0)])
def test_a_full_disk_makes_room_and_then_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, kept: int
) -> None:
    cache, old, fresh = ChunkCache(tmp_path, 10 * SIZE), Source(), Source(1)
    cache.fetch(old.chunk, old)
    monkeypatch.setattr(cache_module, "_write", refusing(times, errno.ENOSPC))
    assert bytes(cache.fetch(fresh.chunk, fresh).data) == fresh.content
    assert cache.find(old.chunk) is None
    assert len(list(tmp_path.glob("*/*"))) == kept


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("limit", [None, 10 * SIZE])
def test_where_nothing_can_be_written_there_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int, limit: int | None
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(error, os.strerror(error), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    cache, source = ChunkCache(tmp_path / "shards", limit), Source()
    assert cache.limit == 0
    assert f"there can be no cache in {tmp_path / 'shards'} ({os.strerror(error)})" in caplog.text
    for _ in range(2):
        held = cache.fetch(source.chunk, source)
        assert (bytes(held.data), held.inode) == (source.content, None)
    assert len(caplog.records) == 1, "it is said once, not of every chunk"


def test_a_folder_that_may_not_be_written_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError):
        ChunkCache(tmp_path / "shards")


def test_a_broken_disk_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    monkeypatch.setattr(cache_module, "_write", refusing(9, errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        ChunkCache(tmp_path, 10 * SIZE).fetch(source.chunk, source)


def test_a_failed_download_leaves_neither_file_nor_lock(tmp_path: Path) -> None:
    source, cache = Source(), ChunkCache(tmp_path, 10 * SIZE)

    def broken(take: Take) -> None:
        take(memoryview(source.content)[:10])
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        cache.fetch(source.chunk, broken)
    assert on_disk(tmp_path) == 0
    assert bytes(cache.fetch(source.chunk, source).data) == source.content
    with (tmp_path / "usage").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
