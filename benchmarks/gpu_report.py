"""The parts of the GPU benchmark, one after the other, as one report."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.data_images import write_images
from benchmarks.data_waiting import LITE, SMALL, Training, waited_by
from benchmarks.gpu_steps import Saving, in_own_process, median_rate, speed, stalls
from benchmarks.real_runs import Home, RunFailed, home
from benchmarks.report import Goal, Report, Table, spread
from benchmarks.step import in_processes
from benchmarks.taking_turns import Match
from starling.infra.errors import UsageError
from starling.trainer.models.torchvision_shim import import_torchvision

RESNET, SMALL_CNN, LITE0 = "torchvision/resnet18", "small-cnn", "efficientnet-lite0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much to measure."""

    model: str
    """Of runs and steps."""
    run_images: int = 512
    run_pixels: int = 128
    epochs: int = 60
    """Enough that a node can be taken away, replaced, and another one taken away meanwhile, on a busy machine too."""
    worlds: tuple[int, ...] = (1, 2, 4)
    step_pixels: int = 224
    step_batch: int = 128
    turns: int = 10
    stretch: int = 5
    speeds: tuple[tuple[int, int], ...] = ((512, 64), (2048, 8))
    """Pixels and global batch."""
    saves: int = 8
    waiting_images: int = 2000
    waiting: tuple[Training, ...] = (
        replace(SMALL, device="cuda"),
        replace(LITE, fraction=1.0, batch=32, device="cuda"),
    )


QUICK = Sizes(
    model=SMALL_CNN,
    run_images=128,
    run_pixels=32,
    epochs=100,
    worlds=(1,),
    step_pixels=16,
    step_batch=16,
    turns=2,
    stretch=2,
    speeds=((64, 8),),
    saves=2,
    waiting_images=64,
    waiting=(SMALL,),
)


def measure(device: str, *, quick: bool) -> Report:
    """All parts on one kind of device."""
    sizes = QUICK if quick else Sizes(model=_best_model())
    parts = [_bits(device, sizes), _steps(device, sizes), _speeds(device, sizes), _saving(device, sizes)]
    parts.append(_waiting(device, sizes))
    return Report(
        title=f"On {_name(device)}",
        question=f"{sizes.model} through Starling on one device; ranks of several nodes share it, over gloo.",
        tables=tuple(table for table, _ in parts),
        figures={name: value for _, figures in parts for name, value in figures.items()},
        goals=(Goal(figure="runs_with_other_weights", limit=0),),
    )


Part = tuple[Table, dict[str, float]]


def _name(device: str) -> str:
    if device == "cpu":
        return "the CPU"
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def _best_model() -> str:
    try:
        import_torchvision()
    except UsageError:
        return SMALL_CNN
    return RESNET


def _bits(device: str, sizes: Sizes) -> Part:
    """Real runs at several world sizes, and one that is interrupted with notice and without."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", sizes.run_images, sizes.run_pixels)
        with home(Path(folder) / "home") as here:
            found = dict(_runs(here, Path(folder) / "images", device, sizes))
    shas = {name: result["weights_sha256"] for name, result in found.items() if isinstance(result, dict)}
    first = next(iter(shas.values()), None)
    rows = [
        (name, shas[name][:16], "yes" if shas[name] == first else "**no**")
        if name in shas
        else (name, str(found[name]), "-")
        for name in found
    ]
    table = Table(
        title="Bits of the weights at the end of a run",
        columns=("", "SHA-256", "the same"),
        rows=tuple(rows),
        note="`starling run` with local nodes that share the device. Interrupted: one node leaves on notice, then "
        "the first one is killed; both are replaced.",
    )
    return table, {"runs_with_other_weights": float(sum(shas.get(name) != first for name in found))}


def _runs(here: Home, images: Path, device: str, sizes: Sizes) -> Iterator[tuple[str, dict[str, Any] | str]]:
    spec = here.write_spec(
        "bits",
        task="classification",
        model=sizes.model,
        data={"dataset": "images", "source": str(images)},
        training={
            "epochs": sizes.epochs,
            "global_batch": 32,
            "virtual_shards": 4,
            "optimizer": {"name": "sgd", "lr": 0.01},
            "device": device,
        },
    )
    for world in sizes.worlds:
        label = f"{world} node{'s' if world > 1 else ''}"
        yield label, _ended(here.run, spec, f"nodes-{world}", {"nodes.min": world, "nodes.max": world})
    world = 2
    yield f"{world} nodes, interrupted", _ended(here.run_interrupted, spec, "interrupted", {"nodes.max": world})


def _ended(run: Any, *arguments: Any) -> dict[str, Any] | str:
    """A run's result, or why it has none: one that fails does not hide the others."""
    try:
        result: dict[str, Any] = run(*arguments)
    except RunFailed as error:
        return str(error)
    return result


def _match(device: str, sizes: Sizes) -> Match:
    return Match(
        world_size=1,
        exact=True,
        threads=1,
        model=sizes.model,
        pixels=sizes.step_pixels,
        global_batch=sizes.step_batch,
        virtual_shards=4,
        stretch=sizes.stretch,
        turns=sizes.turns,
        device=device,
    )


def _steps(device: str, sizes: Sizes) -> Part:
    """Exact, plain, and what one would write without us."""
    rows, figures = [], {}
    for exact in (True, False):
        timings = in_processes(replace(_match(device, sizes), exact=exact))
        ours, bare = ([1000 * turn.seconds for turn in side] for side in (timings.ours, timings.plain))
        ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
        name = "exact" if exact else "plain"
        figures[f"ratio_{name}_vs_bare"] = statistics.median(ratios)
        rows.append((name, spread(ours), spread(bare), spread(ratios)))
    return Table(
        title="Milliseconds a step",
        columns=("steps", "ours", "bare PyTorch", "ratio"),
        rows=tuple(rows),
        note=f"Batch of {sizes.step_batch} at {sizes.step_pixels} px, fp32, one rank, images from memory; both sides "
        "in one process, taking turns. Exact: four passes, deterministic kernels, no TF32; the bare loop has torch's "
        "defaults.",
    ), figures


def _speeds(device: str, sizes: Sizes) -> Part:
    """Whole training steps in bf16."""
    rows, figures = [], {}
    models = (RESNET, LITE0) if sizes.model == RESNET else (sizes.model,)
    for pixels, batch in sizes.speeds:
        for model in models:
            for exact in (True, False):
                found = in_own_process(speed, _large(replace(_match(device, sizes), exact=exact), model, pixels, batch))
                name, kind = model.rpartition("/")[2].replace("-", "_"), "exact" if exact else "plain"
                if isinstance(found, str):
                    rows.append((f"{model}, {kind}", f"{pixels}", f"{batch}", found, "-"))
                    continue
                figures[f"{name}_{pixels}px_{kind}_images_per_s"] = median_rate(found)
                peak = f"{found.peak_bytes / 2**30:.2f}" if device == "cuda" else "-"
                rows.append((f"{model}, {kind}", f"{pixels}", f"{batch}", spread(found.images_per_second), peak))
    return Table(
        title="Images a second",
        columns=("", "px", "batch", "images/s", "peak GPU memory, GiB"),
        rows=tuple(rows),
        note="Forward, backward and update; bf16 autocast, channels_last, activation checkpointing; images from "
        "memory. Exact steps hold a quarter of the batch at a time.",
    ), figures


def _large(match: Match, model: str, pixels: int, batch: int) -> Match:
    return replace(
        match,
        model=model,
        pixels=pixels,
        global_batch=batch,
        turns=max(2, match.turns // 2),
        stretch=2,
        precision="bf16",
        activation_checkpointing=True,
        channels_last=True,
    )


def _saving(device: str, sizes: Sizes) -> Part:
    found = in_own_process(stalls, Saving(match=_match(device, sizes), times=sizes.saves))
    if isinstance(found, str):
        raise RuntimeError(found)
    ours, theirs = ([1000 * seconds for seconds in side] for side in (found.ours, found.torch_save))
    ratios = [mine / their for mine, their in zip(ours, theirs, strict=True)]
    table = Table(
        title="Milliseconds for which saving holds training up",
        columns=("", "blocked, ms"),
        rows=(("Starling", spread(ours)), ("torch.save, synced", spread(theirs))),
        note=f"A state of {found.state_bytes / 1e6:.0f} MB on the device, saved into a folder.",
    )
    return table, {"blocked_ms": statistics.median(ours), "ratio_blocked_vs_sync_save": statistics.median(ratios)}


def _waiting(device: str, sizes: Sizes) -> Part:
    """Real runs over JPEGs of 512 px in a store on this machine's disk."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", sizes.waiting_images)
        found = [
            waited_by(replace(training, device=device), "", Path(folder) / training.name, f"{folder}/images")
            for training in sizes.waiting
        ]
    table = Table(
        title="A training run's wait for data",
        columns=("", "images/s", "waiting, of a step's time", "in the first steps"),
        rows=tuple(
            (one.label, f"{one.images_per_second:.0f}", f"{one.share:.1%}", f"{one.share_at_first:.1%}")
            for one in found
        ),
        note="JPEGs of about 100 kB (512 px) from a folder, decoded and scaled on the way; from a cold cache.",
    )
    return table, {f"waiting_{one.name}": one.share for one in found}
