"""Checkpoints piece by piece: shares, retention, local copies, commit order, damage."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from starling.infra.errors import StoreUnavailable
from starling.infra.store import Store
from starling.infra.store.faults import Fault, FaultRule, FaultyStore
from starling.trainer.checkpoint import saver as saver_module
from starling.trainer.checkpoint.files import DamagedFile, read_tensors, share, write_tensors
from starling.trainer.checkpoint.load import NoneVerified, load_newest
from starling.trainer.checkpoint.local import LocalCheckpoints
from starling.trainer.checkpoint.manifest import (
    committed_steps,
    manifest_key,
    part_key,
    read_manifest,
    receipt_key,
    whole_key,
)
from starling.trainer.checkpoint.retention import best_interval, expendable
from starling.trainer.checkpoint.saver import Commit, Origin, Saver
from starling.trainer.checkpoint.staging import Staging
from starling.trainer.state import Hashes, TrainingState, capture, restore

PREFIX = "runs/r/checkpoints/"


def state(step: int, seed: int = 0) -> TrainingState:
    generator = torch.Generator().manual_seed(seed + step)
    tensors = {f"model.layer{i}": torch.randn(50 + i, 7, generator=generator) for i in range(5)}
    tensors["model.count"] = torch.tensor(step)
    tensors["optimizer.layer0.momentum_buffer"] = torch.randn(50, 7, generator=generator)
    return TrainingState(step=step, tensors=tensors, scaler={}, schedule={"name": "constant", "next_lr": 0.1})


class Savers:
    """The savers of all nodes of a round, over one store."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        count: int,
        round_number: int = 0,
        keep: int = 2,
        stores: dict[int, Store] | None = None,
    ) -> None:
        self.commits: list[Commit] = []
        origin = Origin(
            run="r",
            incarnation=0,
            round=round_number,
            world_size=count,
            steps_per_epoch=10,
            fingerprint={"device": "test"},
            code_sha256=None,
            keep=keep,
        )
        self.all = []
        for index in range(count):
            scratch = folder / f"node{index}"
            scratch.mkdir(exist_ok=True)
            local = LocalCheckpoints(scratch / "checkpoints")
            self.all.append(
                Saver(
                    (stores or {}).get(index, store),
                    PREFIX,
                    local,
                    origin,
                    uploader=index,
                    uploaders=count,
                    on_commit=self.commits.append,
                )
            )

    def save(self, saved: TrainingState, *, upload: bool = True) -> list[Exception | None]:
        for saver in self.all:
            saver.save(saved, upload=upload)
        return [saver.flush() for saver in self.all]

    def close(self) -> None:
        for saver in self.all:
            saver.close()


@pytest.fixture
def savers(folder_store: Store, tmp_path: Path) -> Iterator[Savers]:
    made = Savers(folder_store, tmp_path, 3)
    yield made
    made.close()


def never(step: int, reason: str) -> None:
    raise AssertionError(f"step {step} was passed over: {reason}")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 9))
def test_shares_are_a_partition(sizes: list[int], count: int) -> None:
    tensors = {f"t{i:02}": torch.zeros(size) for i, size in enumerate(sizes)}
    shares = [share(tensors, index, count) for index in range(count)]
    assert sorted(name for part in shares for name in part) == sorted(tensors)


def test_shares_are_about_equal() -> None:
    tensors = {f"t{i:02}": torch.zeros(100) for i in range(40)}
    assert [len(share(tensors, index, 4)) for index in range(4)] == [10, 10, 10, 10]


@given(st.sets(st.integers(1, 300)), st.integers(0, 5))
def test_retention_never_drops_an_epoch_or_the_newest(steps: set[int], keep: int) -> None:
    gone = set(expendable(steps, steps_per_epoch=10, keep=keep))
    kept = steps - gone
    assert all(step % 10 for step in gone)
    assert not steps or max(steps) in kept
    assert len([step for step in kept if step % 10]) <= max(keep, 1)


def test_the_best_interval_is_youngs() -> None:
    assert best_interval(2.0, 3600.0) == pytest.approx(120.0)


def test_a_checkpoint_of_three_nodes_comes_back_whole(savers: Savers, folder_store: Store, tmp_path: Path) -> None:
    original = state(10)
    assert savers.save(original) == [None, None, None]
    loaded = load_newest(folder_store, PREFIX, never)
    assert loaded is not None
    assert loaded[0].state_sha256() == original.state_sha256()
    assert loaded[1].weights_sha256 == original.weights_sha256()
    assert len(loaded[1].parts) == 3
    assert savers.commits[0].bytes == sum(part.size for part in loaded[1].parts)


def test_a_download_that_is_cut_does_not_condemn_the_checkpoint(savers: Savers, folder_store: Store) -> None:
    savers.save(state(6))
    savers.save(state(12))
    cut = FaultyStore(folder_store, [FaultRule(fault=Fault.TRUNCATED, operation="download", times=2)])
    loaded = load_newest(cut, PREFIX, never)
    assert loaded is not None
    assert loaded[0].step == 12
    assert len(cut.hits) == 2


def test_nothing_is_committed_before_every_part_is_there(savers: Savers, folder_store: Store) -> None:
    savers.all[0].save(state(10), upload=True)
    savers.all[1].save(state(10), upload=True)
    savers.all[1].flush()
    assert committed_steps(folder_store, PREFIX) == []
    savers.all[2].save(state(10), upload=True)
    assert [saver.flush() for saver in savers.all] == [None, None, None]
    assert committed_steps(folder_store, PREFIX) == [10]


def test_a_manifest_is_created_once(savers: Savers, folder_store: Store, tmp_path: Path) -> None:
    savers.save(state(10))
    first = read_manifest(folder_store, PREFIX, 10)
    again = Savers(folder_store, tmp_path, 1, round_number=1)
    assert again.save(state(10, seed=5)) == [None]
    again.close()
    assert read_manifest(folder_store, PREFIX, 10) == first


def test_retention_follows_the_commit(savers: Savers, folder_store: Store) -> None:
    for step in (8, 10, 12, 14, 16):
        savers.save(state(step))
    assert committed_steps(folder_store, PREFIX) == [10, 14, 16]
    left = {info.key.split("/")[3] for info in folder_store.list(PREFIX)}
    assert left == {"0000000010", "0000000014", "0000000016"}


def test_parts_that_were_never_committed_go_with_the_next_commit(savers: Savers, folder_store: Store) -> None:
    folder_store.put(f"{PREFIX}0000000007/part-0-0-of-2.safetensors", b"its uploader died")
    folder_store.put(f"{PREFIX}0000000099/part-0-0-of-2.safetensors", b"somebody may be at it")
    savers.save(state(10))
    folders = {info.key.split("/")[3] for info in folder_store.list(PREFIX)}
    assert folders == {"0000000010", "0000000099"}


def test_a_local_save_leaves_the_store_alone(savers: Savers, folder_store: Store, tmp_path: Path) -> None:
    original = state(11)
    savers.save(original, upload=False)
    assert list(folder_store.list("")) == []
    copy = LocalCheckpoints(tmp_path / "node2" / "checkpoints").load_newest()
    assert copy is not None
    assert copy[0].state_sha256() == original.state_sha256() == copy[1]


def test_an_unreachable_store_is_reported_and_the_local_copy_stays(tmp_path: Path, folder_store: Store) -> None:
    class Refusing:
        uri = folder_store.uri

        def __getattr__(self, name: str) -> Any:
            def refuse(*_args: object, **_kwargs: object) -> None:
                raise StoreUnavailable("the store is on fire")

            return refuse

    savers = Savers(Refusing(), tmp_path, 1)
    (error,) = savers.save(state(3))
    savers.close()
    assert isinstance(error, StoreUnavailable)
    assert LocalCheckpoints(tmp_path / "node0" / "checkpoints").steps() == [3]
    assert not list((tmp_path / "node0").glob("*.safetensors")), "the part's temporary file must not stay"


def test_local_copies_pass_over_damage_and_keep_two(tmp_path: Path) -> None:
    local = LocalCheckpoints(tmp_path)
    for step in (1, 2, 3):
        local.save(state(step), state(step).state_sha256())
    assert local.steps() == [2, 3]
    newest = tmp_path / "0000000003" / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 255
    newest.write_bytes(data)
    copy = local.load_newest()
    assert copy is not None
    assert copy[0].step == 2


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("owned").touch, ())


def test_a_malicious_pickle_in_the_store_is_never_loaded(
    savers: Savers, folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object of the newest checkpoint is replaced by a pickle that would leave a file behind."""
    monkeypatch.chdir(tmp_path)
    savers.save(state(10))
    savers.save(state(20))
    skipped: list[int] = []
    for info in list(folder_store.list(f"{PREFIX}0000000020/")):
        folder_store.put(info.key, pickle.dumps(_Evil()))
    loaded = load_newest(folder_store, PREFIX, lambda step, _: skipped.append(step))
    assert loaded is not None
    assert (loaded[0].step, skipped) == (10, [20])
    manifest = read_manifest(folder_store, PREFIX, 10)
    evil = pickle.dumps(_Evil())
    folder_store.put(manifest.parts[0].key, evil)
    folder_store.put(manifest_key(PREFIX, 10), manifest.to_bytes())
    with pytest.raises(NoneVerified):
        load_newest(folder_store, PREFIX)
    assert not (tmp_path / "owned").exists()


def test_a_node_that_cannot_save_is_not_waited_for(savers: Savers, tmp_path: Path) -> None:
    """Its disk is full, say: the committing node is told at once, and the next try counts again."""
    copies = tmp_path / "node1" / "checkpoints"
    copies.rmdir()
    copies.write_text("a file cannot hold copies")
    began = time.monotonic()
    for _ in range(2):
        errors = savers.save(state(10))
        assert "node 1 of 3 could not save" in str(errors[0])
        assert errors[1] is not None
    assert time.monotonic() - began < 20
    assert savers.commits == []
    copies.unlink()
    copies.mkdir()
    assert savers.save(state(10)) == [None, None, None]
    assert [commit.manifest.step for commit in savers.commits] == [10]


def test_who_waits_is_told_of_a_failure_once_the_store_is_back(folder_store: Store, tmp_path: Path) -> None:
    part = FaultRule(fault=Fault.UNAVAILABLE, operation="upload", key="*-1-of-2.*")
    word = FaultRule(fault=Fault.UNAVAILABLE, operation="put", key="*-1-of-2.*", times=2)
    savers = Savers(folder_store, tmp_path, 2, stores={1: FaultyStore(folder_store, [part, word])})
    errors = savers.save(state(10))
    assert "node 1 of 2 could not save" in str(errors[0])
    assert errors[1] is not None
    savers.close()


def test_a_saver_survives_an_error_that_nobody_foresaw(savers: Savers, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patched:
        patched.setattr(LocalCheckpoints, "save", fail)
        savers.all[0].save(state(10), upload=False)
        assert str(savers.all[0].flush()) == "unforeseen"
    assert savers.save(state(10)) == [None, None, None]


def test_a_full_disk_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_tensors({"a": torch.zeros(3)}, tmp_path / "missing" / "a.safetensors")


ODD = {
    "b": torch.tensor([True, False, True]),
    "a.bf16": torch.arange(5, dtype=torch.bfloat16),
    "z": torch.tensor(3.5, dtype=torch.float64),
    "nothing": torch.zeros(0, 7),
    "i": torch.tensor([[1], [2]]),
    "turned": torch.arange(6.0).view(2, 3).t(),
    "bytes": torch.arange(9, dtype=torch.uint8),
}


def test_files_are_what_safetensors_writes_and_reads(tmp_path: Path) -> None:
    write_tensors(ODD, tmp_path / "ours")
    save_file({name: tensor.contiguous() for name, tensor in ODD.items()}, tmp_path / "theirs")
    for found in (load_file(tmp_path / "ours"), read_tensors(tmp_path / "ours"), read_tensors(tmp_path / "theirs")):
        assert {name: (t.dtype, t.shape) for name, t in found.items()} == {
            n: (t.dtype, t.shape) for n, t in ODD.items()
        }
        assert all(torch.equal(found[name], ODD[name]) for name in ODD)
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size


def test_a_damaged_file_is_never_read(tmp_path: Path) -> None:
    """Whatever its header says: an error, or tensors that lie inside the file."""
    path = tmp_path / "file"
    write_tensors({"a": torch.ones(3), "b": torch.zeros(2, 2)}, path)
    whole = path.read_bytes()
    for size in (0, 7, 8, 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedFile, match="file"):
            read_tensors(path)
    for old, new in [(b"[0,12]", b"[4,16]"), (b"[0,12]", b"[0,99]"), (b"[0,12]", b"[-4,8]"), (b"[3]", b"[9]")]:
        header = whole[8:].partition(b"}}")[0] + b"}}"
        changed = header.replace(old, new)
        path.write_bytes(len(changed).to_bytes(8, "little") + changed + bytes(28))
        if new == b"[4,16]":
            assert read_tensors(path)["a"].shape == (3,)
            continue
        with pytest.raises(DamagedFile):
            read_tensors(path)
    for header in (b"[]", b"nonsense", b'{"a": 1}', b'{"a": {"dtype": "F99", "shape": [], "data_offsets": [0, 0]}}'):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(DamagedFile, match="header"):
            read_tensors(path)


def test_a_type_that_the_format_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="complex64"):
        write_tensors({"a": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "file")


def test_memory_for_copies_is_used_again_and_holds_what_was_copied() -> None:
    staging = Staging(2)
    slot = staging.take()
    first = slot.copy(ODD)
    assert all(torch.equal(first[name], ODD[name]) for name in ODD)
    staging.give_back(slot)
    changed = {name: tensor.clone().fill_(1) for name, tensor in ODD.items()}
    again = staging.take().copy(changed)
    assert again["turned"].data_ptr() == first["turned"].data_ptr(), "fresh memory is what costs"
    assert all(torch.equal(again[name], changed[name]) for name in ODD)
    other = staging.take().copy(ODD)
    assert torch.equal(again["i"], changed["i"]), "a second copy must not touch the first"
    assert torch.equal(other["i"], ODD["i"])


def test_memory_follows_a_state_that_changes_its_shape() -> None:
    slot = Staging(1).take()
    slot.copy({"a": torch.zeros(3)})
    grown = slot.copy({"a": torch.ones(5), "b": torch.ones(2)})
    assert {name: tuple(tensor.shape) for name, tensor in grown.items()} == {"a": (5,), "b": (2,)}
    assert slot.copy({}) == {}


def test_training_may_change_a_state_that_is_being_saved(savers: Savers, folder_store: Store) -> None:
    changing = state(10)
    expected = changing.state_sha256()
    for saver in savers.all:
        saver.save(changing)
    for tensor in changing.tensors.values():
        tensor.zero_()
    assert [saver.flush() for saver in savers.all] == [None, None, None]
    assert read_manifest(folder_store, PREFIX, 10).state_sha256 == expected


def test_a_damaged_part_is_named(savers: Savers, folder_store: Store) -> None:
    savers.save(state(10))
    key = read_manifest(folder_store, PREFIX, 10).parts[1].key
    data = bytearray(folder_store.get(key).data)
    data[-1] ^= 1
    folder_store.put(key, bytes(data))
    reasons: list[str] = []
    with pytest.raises(NoneVerified):
        load_newest(folder_store, PREFIX, lambda _, reason: reasons.append(reason))
    assert key in reasons[0]
    assert "SHA-256" in reasons[0]


def test_a_damaged_local_copy_is_replaced_when_its_step_is_saved_again(tmp_path: Path) -> None:
    saved = state(4)
    LocalCheckpoints(tmp_path).save(saved, saved.state_sha256())
    (tmp_path / "0000000004" / "state.safetensors").write_bytes(b"damaged")
    local = LocalCheckpoints(tmp_path)
    assert local.load_newest() is None
    local.save(saved, saved.state_sha256())
    copy = local.load_newest()
    assert copy is not None
    assert copy[1] == saved.state_sha256()


def test_a_state_comes_back_whatever_the_order_of_the_optimizers_groups() -> None:
    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = torch.nn.Linear(3, 2)
        groups = [{"params": [model.bias], "lr": 0.1}, {"params": [model.weight]}]
        return model, torch.optim.Adam(groups, lr=0.01)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (model(torch.arange(6.0).view(2, 3)) ** 2).sum().backward()
        optimizer.step()

    model, optimizer = build()
    step(model, optimizer)
    saved = Staging(1).take().copy(capture(1, model, optimizer).tensors)
    other, its_optimizer = build()
    restore(TrainingState(step=1, tensors=saved, scaler={}, schedule={}), other, its_optimizer)
    for each in ((model, optimizer), (other, its_optimizer)):
        step(*each)
    assert capture(2, model, optimizer).state_sha256() == capture(2, other, its_optimizer).state_sha256()


def test_a_reader_that_can_verify_nothing_changes_nothing(
    savers: Savers, folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory may be bad: to set everything aside would be to lose the run."""
    savers.save(state(10))
    savers.save(state(20))
    before = {info.key for info in folder_store.list(PREFIX)}
    with monkeypatch.context() as broken:
        broken.setattr(TrainingState, "hashes", lambda self, threads=1: Hashes("0" * 64, "0" * 64))
        with pytest.raises(NoneVerified, match=r"none of the 2 checkpoints .* step 20"):
            load_newest(folder_store, PREFIX)
    assert {info.key for info in folder_store.list(PREFIX)} == before
    loaded = load_newest(folder_store, PREFIX)
    assert loaded is not None
    assert loaded[0].step == 20


def test_what_was_set_aside_stays_when_later_steps_are_committed(savers: Savers, folder_store: Store) -> None:
    for step in (10, 20):
        savers.save(state(step))
    part = read_manifest(folder_store, PREFIX, 20).parts[0].key
    folder_store.put(part, b"damaged")
    loaded = load_newest(folder_store, PREFIX)
    assert loaded is not None
    assert loaded[0].step == 10
    savers.save(state(30))
    assert folder_store.get(part).data == b"damaged"
    assert committed_steps(folder_store, PREFIX) == [10, 30]


def test_parts_of_an_attempt_that_came_to_nothing_go_with_the_next_commit(savers: Savers, folder_store: Store) -> None:
    savers.save(state(10))
    named = {part.key for part in read_manifest(folder_store, PREFIX, 10).parts}
    orphans = [part_key(PREFIX, 10, 99, 0, 2), receipt_key(part_key(PREFIX, 10, 99, 0, 2)), whole_key(PREFIX, 10, "n")]
    for key in orphans:
        folder_store.put(key, b"of a broken round")
    savers.save(state(20))
    left = {info.key for info in folder_store.list(f"{PREFIX}0000000010/")}
    assert not left & set(orphans)
    assert named <= left
    loaded = load_newest(folder_store, PREFIX)
    assert loaded is not None


def test_a_clean_up_that_fails_is_no_failed_commit(savers: Savers, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailable("no s3:DeleteObject here")

    monkeypatch.setattr(saver_module, "take_inventory", refuse)
    assert savers.save(state(10)) == [None, None, None]
    assert [commit.manifest.step for commit in savers.commits] == [10]


def test_what_a_killed_writer_left_on_the_disk_goes_with_the_next_copy(tmp_path: Path) -> None:
    unfinished = tmp_path / ".0000000003.4711"
    unfinished.mkdir()
    (unfinished / "state.safetensors").write_bytes(b"half")
    saved = state(4)
    LocalCheckpoints(tmp_path).save(saved, saved.state_sha256())
    assert [path.name for path in tmp_path.iterdir()] == ["0000000004"]


def test_a_restored_optimizer_does_not_hold_on_to_the_file(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors = Staging(1).take().copy(capture(1, model, optimizer).tensors)
    restore(TrainingState(step=1, tensors=tensors, scaler={}, schedule={}), model, optimizer)
    theirs = {tensor.data_ptr() for tensor in tensors.values()}
    ours = {t.data_ptr() for slots in optimizer.state.values() for t in slots.values()}
    assert not ours & theirs
