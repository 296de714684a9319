"""What every store must do. A store's own test module inherits `StoreSuite` and gives the fixture `store`."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from starling.infra.errors import (
    ObjectCorrupt,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    UsageError,
    VersionConflict,
)
from starling.infra.store import Store, open_store
from tests.support import racers

LARGE = 40 * 1024 * 1024 + 12_345
RACERS = 16

BAD_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    "..",
    "a/../b",
    ".hidden",
    "a/.b",
    "a b",
    "a\n",
    "ä",
    "a\\b",
    "a?b",
    "a%2e",
    "x" * 256,
]
BAD_KEYS += ["/".join(["segment"] * 120)]

CONTENTS = [b"", b"x", "größer als 1 €, 雪".encode(), bytes(range(256)) * 5, b"\r\n\0\xff" * 1000]

NAMES = st.sampled_from(["a", "b/c", "b/d", "b-c", "b.c/x", "run.0.1/intent.json"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "create", "replace", "stale", "delete", "upload"]), NAMES, st.binary(max_size=40)
    ),
    max_size=12,
)


class StoreSuite(ABC):
    """The contract of `Store`, as tests."""

    process_rounds: int
    thread_rounds: int
    racing_processes: int
    increments: int

    @abstractmethod
    def damage(self, store: Store, key: str) -> None:
        """Change a byte of the stored object, behind the store's back."""

    # Single objects

    @pytest.mark.parametrize("content", CONTENTS, ids=len)
    def test_content_comes_back_as_written(self, store: Store, content: bytes) -> None:
        version = store.put("a/b.bin", content)
        assert store.get("a/b.bin").data == content
        assert store.get("a/b.bin").version == version

    def test_put_overwrites_and_changes_version_and_tag(self, store: Store) -> None:
        first, tag = store.put("k", b"one"), store.stat("k").tag
        assert store.put("k", b"two") != first
        assert store.stat("k").tag != tag
        assert store.get("k").data == b"two"

    def test_what_is_not_there_is_not_found(self, store: Store, tmp_path: Path) -> None:
        store.put("there/a", b"x")
        for key in ("nothing", "there", "there/b", "there/a/b"):
            with pytest.raises(ObjectNotFound, match=key):
                store.get(key)
            with pytest.raises(ObjectNotFound, match=key):
                store.stat(key)
            with pytest.raises(ObjectNotFound, match=key):
                store.read_range(key, 0, 1)
            with pytest.raises(ObjectNotFound, match=key):
                store.read_range(key, 0, 0)
            with pytest.raises(ObjectNotFound, match=key):
                store.download(key, tmp_path / "out")
        assert list(tmp_path.glob("*out*")) == []

    def test_create_refuses_an_existing_object_and_leaves_it(self, store: Store) -> None:
        version = store.create("k", b"first")
        with pytest.raises(ObjectExists, match="k exists already"):
            store.create("k", b"second")
        with pytest.raises(ObjectExists):  # not even with the same bytes: only one may believe it was first
            store.create("k", b"first")
        assert store.get("k").data == b"first"
        assert store.get("k").version == version

    def test_replace_needs_the_version_that_is_there(self, store: Store) -> None:
        first = store.create("k", b"1")
        second = store.replace("k", b"2", first)
        with pytest.raises(VersionConflict, match="changed by another writer"):
            store.replace("k", b"3", first)
        assert store.get("k").data == b"2"
        assert store.replace("k", b"4", second) == store.get("k").version

    def test_replace_does_not_bring_back_a_deleted_object(self, store: Store) -> None:
        version = store.put("k", b"1")
        store.delete("k")
        with pytest.raises(VersionConflict):
            store.replace("k", b"2", version)
        with pytest.raises(ObjectNotFound):
            store.get("k")

    def test_a_deleted_object_can_be_created_again(self, store: Store) -> None:
        store.create("k", b"1")
        store.delete("k")
        store.delete("k")
        store.create("k", b"2")
        assert store.get("k").data == b"2"

    def test_stat_is_one_line_of_the_listing(self, store: Store) -> None:
        store.put("a/b", b"12345")
        store.put("a/b2", b"")
        assert store.stat("a/b") == next(store.list("a/b"))
        assert store.stat("a/b").size == 5
        assert abs(store.stat("a/b").modified_at - _now(store)) < 60

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_keys_are_refused_by_every_operation(self, store: Store, tmp_path: Path, key: str) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"x")
        operations: list[Any] = [
            lambda: store.get(key),
            lambda: store.put(key, b""),
            lambda: store.create(key, b""),
            lambda: store.replace(key, b"", "v"),
            lambda: store.delete(key),
            lambda: store.stat(key),
            lambda: store.upload(file, key),
            lambda: store.download(key, tmp_path / "out"),
            lambda: store.read_range(key, 0, 1),
        ]
        for operation in operations:
            with pytest.raises(UsageError, match="bad store key"):
                operation()

    def test_the_uri_opens_the_same_store_elsewhere(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.put("k", b"here")
        monkeypatch.chdir(tmp_path)
        again = open_store(store.uri)
        assert again.get("k").data == b"here"
        assert again.uri == store.uri

    # Ranges

    def test_ranges(self, store: Store) -> None:
        store.put("k", b"0123456789")
        assert store.read_range("k", 0, 10) == b"0123456789"
        assert store.read_range("k", 3, 4) == b"3456"
        assert store.read_range("k", 8, 100) == b"89"
        assert store.read_range("k", 9, 1) == b"9"
        assert store.read_range("k", 10, 1) == b""
        assert store.read_range("k", 100, 5) == b""
        assert store.read_range("k", 5, 0) == b""
        store.put("empty", b"")
        assert store.read_range("empty", 0, 10) == b""

    # Listing

    def test_listing_is_by_plain_string_prefix_and_in_key_order(self, store: Store) -> None:
        keys = [
            "a/b",
            "a-b",
            "a.b",
            "a0",
            "a/b-c",
            "a/b/c",
            "a=1/x",
            "A/1",
            "_x/1",
            "ab/c",
            "nodes/run.0.1/s",
            "nodes/runs.0/s",
        ]
        keys.remove("a/b/c")  # below another key: not every store can hold that
        for key in keys:
            store.put(key, key.encode())
        for prefix in (
            "",
            "a",
            "a/",
            "a/b",
            "a-",
            "nodes/run.",
            "nodes/",
            "nodes",
            "no/such",
            "z",
            "a/b-c",
            "a/b-c/",
            ".",
        ):
            expected = sorted(key for key in keys if key.startswith(prefix))
            assert [info.key for info in store.list(prefix)] == expected, prefix
        assert {info.key: info.size for info in store.list()} == {key: len(key) for key in keys}

    @pytest.mark.parametrize("prefix", ["/", "a//", "../", "a/../b", "a b", ".x/"])
    def test_bad_prefixes_are_refused_at_once(self, store: Store, prefix: str) -> None:
        with pytest.raises(UsageError, match="bad prefix"):
            store.list(prefix)

    def test_more_than_a_page_of_keys(self, store: Store) -> None:
        keys = [f"many/{number:04d}" for number in range(1050)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b"x"), reversed(keys)))
        store.put("other", b"x")
        assert [info.key for info in store.list("many/")] == keys
        assert len(list(store.list("many/01"))) == 100

    def test_listing_while_objects_come_and_go(self, store: Store) -> None:
        stable = [f"all/{number}/stable" for number in range(10)]
        for key in stable:
            store.put(key, b"x")
        stop = threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                for number in range(10):
                    store.put(f"all/{number}/fleeting", b"y")
                    store.delete(f"all/{number}/fleeting")

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(come_and_go)
            try:
                for _ in range(30):
                    found = [info.key for info in store.list("all/")]
                    assert [key for key in found if key.endswith("stable")] == stable
                    assert found == sorted(found)
            finally:
                stop.set()
            running.result()

    # Large objects

    def test_a_large_file_goes_up_and_down(self, store: Store, tmp_path: Path) -> None:
        file, back = tmp_path / "file", tmp_path / "new folder" / "back"
        file.write_bytes(os.urandom(LARGE))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert store.upload(file, "big/file") == digest
        assert store.stat("big/file").size == LARGE
        store.download("big/file", back)
        assert back.read_bytes() == file.read_bytes()
        assert store.read_range("big/file", LARGE - 7, 100) == file.read_bytes()[-7:]
        store.download("big/file", back, sha256=digest)
        with pytest.raises(ObjectCorrupt, match="SHA-256"):
            store.download("big/file", back, sha256="0" * 64)
        assert back.read_bytes() == file.read_bytes()
        assert [path.name for path in back.parent.iterdir()] == ["back"]

    @pytest.mark.parametrize("size", [0, 1, 8 << 20, (8 << 20) + 1])
    def test_sizes_at_the_edges_of_a_part(self, store: Store, tmp_path: Path, size: int) -> None:
        file, back = tmp_path / "file", tmp_path / "back"
        file.write_bytes(os.urandom(size))
        digest = store.upload(file, "k")
        store.download("k", back, digest)
        assert back.read_bytes() == file.read_bytes()

    @pytest.mark.parametrize("size", [1000, 20 << 20])
    def test_damage_is_found_on_download(self, store: Store, tmp_path: Path, size: int) -> None:
        file, back = tmp_path / "file", tmp_path / "back"
        file.write_bytes(os.urandom(size))
        store.upload(file, "k")
        self.damage(store, "k")
        with pytest.raises(ObjectCorrupt, match="damaged"):
            store.download("k", back)
        assert not back.exists()

    @pytest.mark.parametrize("size", [0, 1, (16 << 20) - 1, 16 << 20, LARGE])
    def test_memory_goes_up_and_down(self, store: Store, size: int) -> None:
        content, back = memoryview(os.urandom(size)), bytearray(size)
        pieces = [content[: size // 3], content[size // 3 : size // 3], content[size // 3 :]]
        assert store.upload_memory(pieces, "k") == hashlib.sha256(content).hexdigest()
        store.download_memory("k", memoryview(back))
        assert back == content

    def test_memory_and_files_are_the_same_objects(self, store: Store, tmp_path: Path) -> None:
        file, back = tmp_path / "file", bytearray(1000)
        file.write_bytes(os.urandom(1000))
        store.upload(file, "k")
        store.download_memory("k", memoryview(back))
        assert back == file.read_bytes()
        store.upload_memory([memoryview(b"from "), memoryview(b"memory")], "k")
        store.download("k", file)
        assert file.read_bytes() == b"from memory"
        self.damage(store, "k")
        with pytest.raises(ObjectCorrupt, match="damaged"):
            store.download("k", file)

    @pytest.mark.parametrize("asked", [0, 99, 101])
    def test_memory_of_another_size_is_refused(self, store: Store, asked: int) -> None:
        store.put("k", bytes(100))
        with pytest.raises(ObjectCorrupt, match="100 bytes"):
            store.download_memory("k", memoryview(bytearray(asked)))

    @pytest.mark.parametrize("size", [0, 1])
    def test_memory_cannot_be_filled_from_what_is_not_there(self, store: Store, size: int) -> None:
        with pytest.raises(ObjectNotFound):
            store.download_memory("k", memoryview(bytearray(size)))

    def test_a_recorded_checksum_does_not_outlive_its_content(self, store: Store, tmp_path: Path) -> None:
        file, back = tmp_path / "file", tmp_path / "back"
        file.write_bytes(b"first")
        rewrites: list[Any] = [
            lambda: store.put("k", b"second"),
            lambda: store.replace("k", b"second", store.get("k").version),
            lambda: store.create("k", b"second"),
        ]
        for rewrite in rewrites:
            store.upload(file, "k")
            if rewrite is rewrites[-1]:
                store.delete("k")
            rewrite()
            store.download("k", back)
            assert back.read_bytes() == b"second"

    def test_uploading_what_is_not_there_says_so(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no-such-file"):
            store.upload(tmp_path / "no-such-file", "k")
        assert list(store.list()) == []

    # Many at once

    def test_one_of_many_racing_threads_creates(self, store: Store) -> None:
        results = _in_threads(store, racers.create_each, self.thread_rounds)
        _assert_one_winner_each(store, results, self.thread_rounds)

    def test_one_of_many_racing_processes_creates(self, store: Store) -> None:
        results = racers.in_processes(store.uri, racers.create_each, self.racing_processes, self.process_rounds)
        _assert_one_winner_each(store, results, self.process_rounds)

    def test_no_increment_of_racing_threads_is_lost(self, store: Store) -> None:
        store.create("counter", b"0")
        lost = _in_threads(store, racers.increment, self.increments)
        assert store.get("counter").data.split()[0] == str(RACERS * self.increments).encode()
        assert sum(lost) >= self.increments, "they did not really race: this proved nothing"

    def test_no_increment_of_racing_processes_is_lost(self, store: Store) -> None:
        store.create("counter", b"0")
        lost = racers.in_processes(store.uri, racers.increment, self.racing_processes, self.increments)
        assert store.get("counter").data.split()[0] == str(self.racing_processes * self.increments).encode()
        assert sum(lost) >= self.increments, "they did not really race: this proved nothing"

    def test_a_reader_never_sees_half_an_object(self, store: Store, tmp_path: Path) -> None:
        size, stop, written = 3 << 20, threading.Event(), 0
        file = tmp_path / "file"
        store.put("k", b"0" * size)

        def rewrite() -> None:
            nonlocal written
            while not stop.is_set():
                content = bytes([ord("0") + written % 10]) * size
                if written % 3:
                    store.put("k", content)
                else:
                    file.write_bytes(content)
                    store.upload(file, "k")
                written += 1

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(rewrite)
            seen: Counter[int] = Counter()
            give_up_at = time.monotonic() + 60
            try:
                # As often as it takes for both to come to it: a disk may be slow.
                while seen.total() < 25 or ((len(seen) < 2 or written < 4) and time.monotonic() < give_up_at):
                    data = store.get("k").data
                    assert len(data) == size
                    assert data == data[:1] * size
                    seen[data[0]] += 1
                    store.download("k", tmp_path / "back")
                    back = (tmp_path / "back").read_bytes()
                    assert back == back[:1] * size
            finally:
                stop.set()
            writer.result()
        assert written > 3
        assert len(seen) > 1, "the reader saw no rewrite: this proved nothing"

    # Against a model

    # Each example works below a prefix of its own; every store's class runs the same examples.
    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(steps=STEPS)
    def test_it_behaves_like_a_dictionary(
        self, store: Store, tmp_path: Path, steps: list[tuple[str, str, bytes]]
    ) -> None:
        base = f"model/{secrets.token_hex(4)}/"
        model: dict[str, bytes] = {}
        for operation, name, data in steps:
            _apply(store, base + name, operation, data, model, tmp_path)
        assert {info.key: info.size for info in store.list(base)} == {key: len(value) for key, value in model.items()}
        assert {info.key: store.get(info.key).data for info in store.list(base)} == model


def _apply(store: Store, key: str, operation: str, data: bytes, model: dict[str, bytes], folder: Path) -> None:
    there = key in model
    if operation == "create" and there:
        with pytest.raises(ObjectExists):
            store.create(key, data)
    elif operation == "stale" or (operation == "replace" and not there):
        with pytest.raises(VersionConflict):
            store.replace(key, data, store.put(f"{key}.old", b"an older version" + data))
        store.delete(f"{key}.old")
    elif operation == "delete":
        store.delete(key)
        model.pop(key, None)
    else:
        if operation == "put":
            store.put(key, data)
        elif operation == "create":
            store.create(key, data)
        elif operation == "replace":
            store.replace(key, data, store.get(key).version)
        else:
            (folder / "file").write_bytes(data)
            store.upload(folder / "file", key)
        model[key] = data


def _in_threads(store: Store, task: Any, arg: int) -> list[Any]:
    barrier = threading.Barrier(RACERS)
    with ThreadPoolExecutor(RACERS) as pool:
        running = [pool.submit(task, store, racer, arg, barrier) for racer in range(RACERS)]
        return [each.result() for each in running]


def _assert_one_winner_each(store: Store, won: list[list[int]], rounds: int) -> None:
    winners = Counter(number for rounds_won in won for number in rounds_won)
    assert winners == dict.fromkeys(range(rounds), 1)
    for racer, rounds_won in enumerate(won):
        for number in rounds_won:
            assert store.get(f"race/{number}").data == f"racer {racer}".encode()


def _now(store: Store) -> float:
    store.put("clock", b"")
    return store.stat("clock").modified_at
