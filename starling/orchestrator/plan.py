"""What a run will do, worked out before anything is started. `plan` prints it, `run` does it, from the same object."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from starling.infra.records import Offer
from starling.orchestrator.capacity import first_candidates, keeps_device, shares_zone
from starling.orchestrator.command_section import CommandSection
from starling.orchestrator.ledger import on_demand_price
from starling.orchestrator.sections import TrainingSection
from starling.orchestrator.spec import Spec

CANDIDATES_SHOWN = 5
NOTICE_SECONDS = 120.0
"""What AWS gives before it takes a spot instance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """How long things took in a run so far; None: not known."""

    step_seconds: float | None = None
    save_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSize:
    """A number of nodes, and what it makes of a step."""

    nodes: int
    ranks: int
    passes: int
    """Shards the busiest rank works through in one step; the fewer, the faster."""
    price_per_hour: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    name: str
    command: str | None
    """The script that is run, if the spec names one: it alone knows its samples and steps."""
    samples: int | None
    """Training samples; None if they are not known before the run (a task of the user's own, a missing dataset)."""
    steps_per_epoch: int | None
    total_steps: int | None
    epochs: int | None
    virtual_shards: int | None
    useful: tuple[WorldSize, ...]
    """Node counts up to the number of shards that each make a step shorter than every smaller one."""
    nodes_min: int
    nodes_max: int
    offer: Offer | None
    """What a node is bought as if all goes well; None if the provider has nothing that fits."""
    candidates: tuple[Offer, ...]
    """The best of those that every node may be bought as, best first."""
    candidate_count: int
    """Of all of them."""
    device: str | None
    """What all nodes compute with, in an exact run; None: any, or there is but one kind."""
    one_zone: bool
    """Whether all nodes share a zone."""
    on_demand_per_hour_max: float | None
    """What nodes.max nodes cost an hour on demand, if that is known."""
    price_per_hour_min: float | None
    price_per_hour_max: float | None
    hours_by_budget: float | None
    """How long the budget pays for nodes.max nodes."""
    most_hours: float | None
    """By limits.max_duration and the budget, whichever comes first."""
    most_cost: float | None
    """US dollars at nodes.max nodes until the first limit."""
    checkpoints: str
    """Or snapshots of a script's folder; in words."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        plain = asdict(self)
        plain["offer"] = self.offer.model_dump(mode="json") if self.offer else None
        plain["candidates"] = [offer.model_dump(mode="json") for offer in self.candidates]
        return plain


def make_plan(spec: Spec, dataset_size: int | None, offers: Iterable[Offer], measured: Measured | None = None) -> Plan:
    """Pure: the plan of a spec for so many training samples and these offers, best first."""
    candidates = first_candidates(spec, offers)
    offer = next(iter(candidates), None)
    full = on_demand_price(offer) if offer is not None else None
    price = offer.price_per_hour if offer else None
    training = spec.training
    per_epoch = math.ceil(dataset_size / training.global_batch) if dataset_size and training else None
    total = per_epoch * training.epochs if per_epoch and training else None
    rate = price * spec.nodes.max if price is not None else None
    paid = spec.limits.budget / rate if spec.limits.budget is not None and rate else None
    longest = spec.limits.max_duration / 3600 if spec.limits.max_duration is not None else None
    hours = min((limit for limit in (paid, longest) if limit is not None), default=None)
    useful = useful_worlds(training.virtual_shards, spec.nodes.ranks, price) if training else ()
    fixed = training is not None and training.keeps_world
    return Plan(
        name=spec.name,
        command=shlex.join(spec.command.run) if spec.command else None,
        samples=dataset_size,
        steps_per_epoch=per_epoch,
        total_steps=total,
        epochs=training.epochs if training else None,
        virtual_shards=training.virtual_shards if training else None,
        useful=tuple(world for world in useful if not fixed or world.nodes == spec.nodes.max),
        nodes_min=spec.nodes.min,
        nodes_max=spec.nodes.max,
        offer=offer,
        candidates=candidates[:CANDIDATES_SHOWN],
        candidate_count=len(candidates),
        device=offer.device if offer is not None and keeps_device(spec) else None,
        one_zone=shares_zone(spec),
        on_demand_per_hour_max=full * spec.nodes.max if full is not None else None,
        price_per_hour_min=price * spec.nodes.min if price is not None else None,
        price_per_hour_max=rate,
        hours_by_budget=paid,
        most_hours=hours,
        most_cost=rate * hours if rate is not None and hours is not None else None,
        checkpoints=_snapshots(spec.command) if spec.command else _checkpoints(spec, total),
        warnings=(
            *_warnings(spec, dataset_size, offer, useful),
            *_market_warnings(spec, candidates),
            *_notice_warnings(spec, measured),
        ),
    )


def useful_worlds(shards: int, ranks_per_node: int, price: float | None = None) -> tuple[WorldSize, ...]:
    """Node counts where a step takes fewer passes than at every smaller count."""
    useful: list[WorldSize] = []
    for nodes in range(1, max(1, shards // ranks_per_node) + 1):
        passes = math.ceil(shards / (nodes * ranks_per_node))
        if not useful or passes < useful[-1].passes:
            cost = price * nodes if price is not None else None
            useful.append(WorldSize(nodes=nodes, ranks=nodes * ranks_per_node, passes=passes, price_per_hour=cost))
    return tuple(useful)


def _checkpoints(spec: Spec, total: int | None) -> str:
    """In words: when, and how many where that is known."""
    assert spec.training is not None
    parts = [f"{spec.training.epochs} at the ends of epochs"]
    if every := spec.checkpoint.every_steps:
        parts.append(f"every {every} steps" + (f" ({total // every})" if total else ""))
    if spec.checkpoint.every_minutes == "auto":
        parts.append("in between as often as their measured cost makes worthwhile")
    elif spec.checkpoint.every_minutes is not None:
        parts.append(f"every {spec.checkpoint.every_minutes:g} minutes")
    parts.append("one whenever a node is announced to go")
    return ", ".join(parts)


def _snapshots(command: CommandSection) -> str:
    return (
        f"of {command.folder}/ every {command.every:g} s if it has changed, and one when a node is announced to go "
        f"(SIGTERM, up to {command.grace:g} s to save), at a stop and at the end; the newest {command.keep} are kept"
    )


def _warnings(
    spec: Spec, dataset_size: int | None, offer: Offer | None, useful: tuple[WorldSize, ...]
) -> Iterable[str]:
    if spec.training is not None:
        yield from _training_warnings(spec, spec.training, dataset_size, useful)
    if offer is None:
        yield f"provider {spec.provider.name} offers nothing with {spec.nodes.gpus_per_node} GPUs for this spec now"
    elif spec.limits.budget is not None and offer.price_per_hour == 0:
        yield "limits.budget has no effect: these nodes cost nothing"
    if offer is not None and offer.price_per_hour > 0 and spec.limits.budget is None:
        yield f"limits.budget: none is set; the run costs whatever it takes{_full_price_too(spec, offer)}"


def _full_price_too(spec: Spec, offer: Offer) -> str:
    keys = [key for key in ("on_demand_after", "on_demand_for_deadline") if getattr(spec.nodes, key)]
    if not keys:
        return ""
    full = on_demand_price(offer)
    price = f" (${full * spec.nodes.max:.2f} an hour)" if full is not None else ""
    return f", and {' and '.join(f'nodes.{key}' for key in keys)} may buy all {spec.nodes.max} on demand{price}"


def _market_warnings(spec: Spec, candidates: tuple[Offer, ...]) -> Iterable[str]:
    if spec.provider.name != "aws" or spec.nodes.market != "spot":
        return
    best = next(iter(candidates), None)
    if best is not None and len(candidates) == 1:
        yield (
            f"provider: only {best.instance_type} in {best.zone} fits; a shortage there leaves the run without nodes: "
            "allow more zones or instance_types"
        )
    full = on_demand_price(best) if best is not None else None
    if best is not None and full is not None and best.price_per_hour >= full:
        yield f"nodes.market: {best.instance_type} costs no less on spot than on demand now; use on-demand"


def _notice_warnings(spec: Spec, measured: Measured | None) -> Iterable[str]:
    if measured is None or measured.step_seconds is None or spec.nodes.market != "spot" or spec.provider.name == "ssh":
        return
    needed = measured.step_seconds + (measured.save_seconds or 0.0)
    if needed > NOTICE_SECONDS:
        yield (
            f"a step and a checkpoint take {needed:.0f} s, longer than the {NOTICE_SECONDS:.0f} s of a spot notice: an "
            "interruption may cost a step; use smaller steps (training.global_batch) in another run, or more nodes"
        )


def _training_warnings(
    spec: Spec, training: TrainingSection, dataset_size: int | None, useful: tuple[WorldSize, ...]
) -> Iterable[str]:
    counts = [world.nodes for world in useful]
    if training.exact and spec.nodes.max not in counts:
        fits = max((count for count in counts if count < spec.nodes.max), default=1)
        yield (
            f"nodes.max: {spec.nodes.max} nodes are no faster than {fits}: a step takes as many passes; "
            f"useful here: {', '.join(map(str, counts))}"
        )
    if dataset_size is not None and dataset_size < training.global_batch:
        yield (
            f"training.global_batch: {training.global_batch} is more than the dataset's {dataset_size} samples: "
            "every epoch is one partial step"
        )
    if spec.checkpoint.every_minutes is None and spec.checkpoint.every_steps is None:
        yield "checkpoint: without every_steps and every_minutes a lost node costs up to one epoch of work"
    if training.exact is False:
        yield "training.exact: false: the result depends on how many nodes there were, and when"
