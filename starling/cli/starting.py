"""`plan`, `run` and `resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starling.cli.datasets import ensure_dataset, size_now
from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, money, note, say, span, table
from starling.cli.watching import watch
from starling.infra.errors import ProviderError, UsageError
from starling.infra.records import EventKind
from starling.infra.store import Store
from starling.orchestrator.datasets import dataset_size
from starling.orchestrator.launching import start_controller
from starling.orchestrator.ledger import on_demand_price
from starling.orchestrator.loading import load_spec
from starling.orchestrator.plan import Measured, Plan, make_plan
from starling.orchestrator.provisioning import provider_for
from starling.orchestrator.report import status
from starling.orchestrator.runs import check_reach, resume_run
from starling.orchestrator.spec import Spec
from starling.orchestrator.stages import Stage, check_named_runs, create_stages, load_stages, runs_to_control


def plan_verb(
    spec_file: Path, overrides: list[str], provider: str | None, store_uri: str | None, *, as_json: bool
) -> None:
    stages, store = _open(spec_file, overrides, provider, store_uri)
    plans = [_plan(stage.spec, size_now(stage.spec, stage.spec_file, store), store) for stage in stages]
    if as_json:
        emit(_plans_json(stages, plans))
    else:
        say(plans_text(stages, plans))


def run_verb(
    spec_file: Path,
    overrides: list[str],
    provider: str | None,
    store_uri: str | None,
    *,
    name: str | None,
    detach: bool,
    as_json: bool,
) -> int:
    """Create, start, watch; returns the exit code. Nothing is written before everything about the input is known."""
    stages, store = _open(spec_file, overrides, provider, store_uri)
    plans = [_plan(stage.spec, ensure_dataset(stage.spec, stage.spec_file, store), store) for stage in stages]
    note(plans_text(stages, plans))
    *_, run = create_stages(store, stages, name=name)
    return _start(store, run, detach=detach, as_json=as_json)


def resume_verb(
    run: str, overrides: list[str], store_uri: str | None, *, spec_file: Path | None, detach: bool, as_json: bool
) -> int:
    spec = load_spec(spec_file, overrides) if spec_file is not None else None
    store = store_for(store_uri, spec, spec_file)
    record = resume_run(store, run, overrides, spec_file=spec_file)
    note(f"run {run}: incarnation {record.incarnation}")
    opened = OpenRun(store, run)
    if opened.verdict() is None:
        note(_plan_text_from_here(opened))
    return _start(store, run, detach=detach, as_json=as_json)


def plans_text(stages: list[Stage], plans: list[Plan]) -> str:
    """The plans of all stages for people, in the order in which they are done."""
    if len(stages) == 1:
        return "\n".join([plan_text(plans[0]), *_named(stages[0])])
    told = []
    for number, (stage, plan) in enumerate(zip(stages, plans, strict=True), start=1):
        title = f"needs.{stage.title}" if stage.path else "the run itself"
        head = f"stage {number} of {len(stages)}: {title}, {stage.spec_file}"
        told.append("\n".join([head, *(f"  {line}" for line in [*plan_text(plan).splitlines(), *_named(stage)])]))
    return "\n".join([*told, *_together(plans)])


def plan_text(plan: Plan) -> str:
    """The plan for people."""
    steps = "the number of steps is known once the data is"
    if plan.command is not None:
        steps = f"{plan.command}, as torchrun would run it"
    elif plan.total_steps is not None:
        steps = f"{plan.total_steps} steps ({plan.epochs} epochs x {plan.steps_per_epoch}), {plan.samples} samples"
    offer = plan.offer
    bought = "nothing that fits is offered"
    if offer is not None:
        kind = "a local node" if offer.provider == "local" else f"{offer.instance_type} in {offer.zone}"
        bought = f"{kind}, {offer.market.value}, {money(offer.price_per_hour)} an hour"
    if plan.device is not None:
        bought += f"; all of them {plan.device}, so that the result stays exact"
    if offer is not None and plan.one_zone:
        bought += "; all in one zone"
    nodes = f"{plan.nodes_min}" if plan.nodes_min == plan.nodes_max else f"{plan.nodes_min} to {plan.nodes_max}"
    lines = [
        f"run of {plan.name}: {steps}",
        f"nodes: {nodes}; each {bought}",
        f"price: {money(plan.price_per_hour_min)} to {money(plan.price_per_hour_max)} an hour{_on_demand(plan)}",
        f"{'snapshots' if plan.command is not None else 'checkpoints'}: {plan.checkpoints}",
    ]
    if plan.most_hours is not None:
        lines.append(f"at most {span(plan.most_hours * 3600)} with all nodes, {money(plan.most_cost)}")
    if plan.candidate_count > 1:
        lines += [f"may be bought as ({plan.candidate_count} in all):", *_indented(_candidates(plan))]
    if plan.useful:
        rows = [["nodes", "ranks", "shard passes a step", "an hour"]]
        rows += [[str(w.nodes), str(w.ranks), str(w.passes), money(w.price_per_hour)] for w in plan.useful]
        lines += ["useful world sizes:", *_indented(rows)]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in plan.warnings)])


def _named(stage: Stage) -> list[str]:
    return [f"needs.{name}: run {run}" for name, run in stage.named_runs.items()]


def _together(plans: list[Plan]) -> list[str]:
    """What all stages may cost, where every one of them has a limit."""
    costs = [plan.most_cost for plan in plans if plan.most_cost is not None]
    return [f"all stages together: at most {money(sum(costs))}"] if len(costs) == len(plans) else []


def _plans_json(stages: list[Stage], plans: list[Plan]) -> dict[str, Any]:
    """The spec's own plan, with those of what it needs."""
    needed = [
        {"need": stage.title, "spec_file": str(stage.spec_file), **plan.to_json()}
        for stage, plan in zip(stages[:-1], plans[:-1], strict=True)
    ]
    return {**plans[-1].to_json(), "needs": needed}


def _on_demand(plan: Plan) -> str:
    if plan.on_demand_per_hour_max is None or plan.price_per_hour_max is None:
        return ""
    saved = 1 - plan.price_per_hour_max / plan.on_demand_per_hour_max if plan.on_demand_per_hour_max else 0.0
    return f" ({money(plan.on_demand_per_hour_max)} on demand, {saved:.0%} saved)" if saved > 0 else ""


def _candidates(plan: Plan) -> list[list[str]]:
    head = ["type", "zone", "market", "an hour", "on demand", "device"]
    return [
        head,
        *(
            [
                o.instance_type,
                o.zone,
                o.market.value,
                money(o.price_per_hour),
                money(on_demand_price(o)),
                o.device or "-",
            ]
            for o in plan.candidates
        ),
    ]


def _indented(rows: list[list[str]]) -> list[str]:
    return [f"  {line}" for line in table(rows).splitlines()]


def _open(
    spec_file: Path, overrides: list[str], provider: str | None, store_uri: str | None
) -> tuple[list[Stage], Store]:
    stages = load_stages(spec_file, overrides, provider)
    store = store_for(store_uri, stages[-1].spec, spec_file)
    for stage in stages[:-1]:
        own = store_for(store_uri, stage.spec, stage.spec_file) if stage.spec.store is not None else store
        if own.uri != store.uri:
            raise UsageError(
                f"{stage.spec_file}: store: {own.uri} is not {store.uri}, where the run that needs it lies; drop it, "
                "or give --store for all"
            )
        check_reach(store, stage.spec)
    check_named_runs(store, stages)
    return stages, store


def _plan(spec: Spec, samples: int | None, store: Store, measured: Measured | None = None) -> Plan:
    provider = provider_for(spec.provider.model_dump(), store.uri)
    offers = provider.offers(gpus=spec.nodes.gpus_per_node, market=spec.nodes.market)
    return make_plan(spec, samples, offers, measured)


def _plan_text_from_here(run: OpenRun) -> str:
    """What the rest of a run will be like; nothing depends on it."""
    view = run.view()
    spec, told = view.facts.spec, status(view)
    saves = [event.data.get("seconds") for event in view.events if event.kind is EventKind.CHECKPOINT]
    measured = Measured(step_seconds=told["step_seconds"], save_seconds=saves[-1] if saves else None)
    samples = dataset_size(run.store, spec.data.dataset) if spec.data is not None else None
    try:
        return plan_text(_plan(spec, samples, run.store, measured))
    except ProviderError as error:
        return f"the plan is not shown: {error}"


def _start(store: Store, run: str, *, detach: bool, as_json: bool) -> int:
    for each in runs_to_control(store, run):
        start_controller(each, store.uri)
    if not detach:
        return watch(OpenRun(store, run), as_json=as_json)
    if as_json:
        emit({"run": run, "store": store.uri})
    else:
        say(run)
    return 0
