"""`plan`, `run` and `resume`."""

from __future__ import annotations

from pathlib import Path

from starling.cli.datasets import ensure_dataset, size_now
from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, money, note, say, span, table
from starling.cli.watching import watch
from starling.infra.errors import ProviderError
from starling.infra.records import EventKind
from starling.infra.store import Store
from starling.orchestrator.datasets import dataset_size
from starling.orchestrator.launching import start_controller
from starling.orchestrator.ledger import on_demand_price
from starling.orchestrator.loading import code_folder, load_spec
from starling.orchestrator.plan import Measured, Plan, make_plan
from starling.orchestrator.provisioning import provider_for
from starling.orchestrator.report import status
from starling.orchestrator.runs import create_run, resume_run
from starling.orchestrator.spec import Spec


def plan_verb(
    spec_file: Path, overrides: list[str], provider: str | None, store_uri: str | None, *, as_json: bool
) -> None:
    spec, store = _open(spec_file, overrides, provider, store_uri)
    plan = _plan(spec, size_now(spec, spec_file, store), store)
    if as_json:
        emit(plan.to_json())
    else:
        say(plan_text(plan))


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
    spec, store = _open(spec_file, overrides, provider, store_uri)
    plan = _plan(spec, ensure_dataset(spec, spec_file, store), store)
    note(plan_text(plan))
    record = create_run(store, spec, name=name, code=code_folder(spec, spec_file))
    return _start(store, record.run, detach=detach, as_json=as_json)


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


def _open(spec_file: Path, overrides: list[str], provider: str | None, store_uri: str | None) -> tuple[Spec, Store]:
    chosen = [f"provider.name={provider}"] if provider is not None else []
    spec = load_spec(spec_file, [*overrides, *chosen])
    return spec, store_for(store_uri, spec, spec_file)


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
    start_controller(run, store.uri)
    if not detach:
        return watch(OpenRun(store, run), as_json=as_json)
    if as_json:
        emit({"run": run, "store": store.uri})
    else:
        say(run)
    return 0
