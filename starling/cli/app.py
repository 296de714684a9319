"""The verbs and their options. What they do is in the modules beside this one, imported when a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starling.cli.aws_app import aws_app, doctor, gc
from starling.cli.data_app import data_app
from starling.cli.judging_app import evaluate, predict
from starling.cli.options import Json, Run

app = typer.Typer(
    name="starling",
    help="Trains models on interruptible machines as if those machines never died.",
    epilog="Exit codes: 0 done, 1 the run failed, 2 wrong usage or spec, 3 stopped by a limit or by `stop`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")
app.add_typer(aws_app, name="aws")
app.command()(doctor)
app.command()(gc)

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="Change a value of the spec.")
]
StoreUri = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="A folder or s3://bucket/prefix; default: the spec's, $STARLING_STORE, $STARLING_HOME/store.",
        show_default=False,
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Do not watch: print the run's id and return.")]
ProviderName = Annotated[str | None, typer.Option("--provider", help="Instead of the spec's.", show_default=False)]
Regions = Annotated[
    str | None,
    typer.Option(
        "--regions",
        metavar="A,B|all",
        help="Regions of AWS; default: $AWS_REGION, the profile's, us-east-1.",
        show_default=False,
    ),
]
NodeId = Annotated[str | None, typer.Option("--node", help="One node's id.", show_default=False)]


@app.command()
def plan(
    spec: SpecFile,
    override: Overrides = None,
    provider: ProviderName = None,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Say what `run` would do: world sizes, steps, checkpoints, price. Starts nothing."""
    from starling.cli.starting import plan_verb

    plan_verb(spec, override or [], provider, store, as_json=json)


@app.command()
def run(
    spec: SpecFile,
    override: Overrides = None,
    provider: ProviderName = None,
    store: StoreUri = None,
    name: Annotated[str | None, typer.Option("--name", help="The run's id.", show_default=False)] = None,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Create a run, start it, and watch it. Ctrl-C stops watching, never the run."""
    from starling.cli.starting import run_verb

    raise typer.Exit(run_verb(spec, override or [], provider, store, name=name, detach=detach, as_json=json))


@app.command()
def resume(
    run: Run,
    spec: Annotated[
        Path | None,
        typer.Option(
            "--spec", metavar="FILE", help="Go on with this file's nodes, limits, provider, ...", show_default=False
        ),
    ] = None,
    override: Overrides = None,
    store: StoreUri = None,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Let a stopped or failed run go on, or start a new controller for one that is not over; then watch it."""
    from starling.cli.starting import resume_verb

    raise typer.Exit(resume_verb(run, override or [], store, spec_file=spec, detach=detach, as_json=json))


@app.command()
def stop(
    run: Run,
    store: StoreUri = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only ask; do not wait until it has stopped.")] = False,
    json: Json = False,
) -> None:
    """Have a run write a checkpoint and end; `resume` lets it go on."""
    from starling.cli.steering import stop_verb

    stop_verb(run, store, wait=not no_wait, as_json=json)


@app.command()
def interrupt(
    run: Run,
    node: Annotated[
        str | None, typer.Option("--node", help="A node's id, or rank0; default: any that trains.", show_default=False)
    ] = None,
    notice: Annotated[
        float | None,
        typer.Option(
            "--notice", metavar="SECONDS", min=0, help="Warn so long ahead; default: 120.", show_default=False
        ),
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="No warning: take the machine at once.")] = False,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Rehearse a spot interruption of one node."""
    from starling.cli.steering import interrupt_verb

    interrupt_verb(run, store, node=node, notice=notice, hard=hard, as_json=json)


@app.command(name="list")
def list_runs(store: StoreUri = None, json: Json = False) -> None:
    """All runs in the store."""
    from starling.cli.showing import list_verb

    list_verb(store, as_json=json)


@app.command()
def status(run: Run, store: StoreUri = None, json: Json = False) -> None:
    """Where a run is: state, step, nodes, checkpoint, cost."""
    from starling.cli.showing import status_verb

    status_verb(run, store, as_json=json)


@app.command()
def result(run: Run, store: StoreUri = None, json: Json = False) -> None:
    """How a run ended: hashes, checkpoint, metrics, recoveries. Exits like the run: 0, 1 or 3."""
    from starling.cli.showing import result_verb

    raise typer.Exit(result_verb(run, store, as_json=json))


@app.command()
def fetch(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; new or empty.", show_default=False)],
    number: Annotated[
        int | None, typer.Option("--snapshot", help="Its number; default: the newest.", show_default=False)
    ] = None,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Get the folder of a script's run, as a snapshot holds it."""
    from starling.cli.fetching import fetch_verb

    fetch_verb(run, folder, number, store, as_json=json)


app.command()(evaluate)
app.command()(predict)


@app.command()
def events(run: Run, store: StoreUri = None, json: Json = False) -> None:
    """Everything that happened to a run, with reasons."""
    from starling.cli.showing import events_verb

    events_verb(run, store, as_json=json)


@app.command()
def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run is over.")] = False,
    node: NodeId = None,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """What the nodes printed."""
    from starling.cli.logs import logs_verb

    logs_verb(run, store, follow=follow, node=node, as_json=json)


@app.command()
def offers(
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", min=0, help="GPUs a node must have; default: 1, with --type any.", show_default=False),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option("--gpu-memory", metavar="GIB", min=0, help="Of each GPU, at least.", show_default=False),
    ] = None,
    instance_type: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only this; may be given again.", show_default=False),
    ] = None,
    regions: Regions = None,
    market: Annotated[str, typer.Option("--market", help="spot or on-demand.")] = "spot",
    json: Json = False,
) -> None:
    """What AWS sells now: types, zones, spot price, its 30-day mean and maximum, on-demand price. Cheapest first."""
    from starling.cli.market import offers_verb

    offers_verb(
        gpus=gpus, gpu_memory=gpu_memory, types=instance_type or [], regions=regions, market=market, as_json=json
    )


@app.command()
def prices(
    instance_type: Annotated[str, typer.Argument(metavar="TYPE", help="Such as g5.xlarge.", show_default=False)],
    days: Annotated[float, typer.Option("--days", help="How far back, at most 90.")] = 30,
    regions: Regions = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw a .png, .svg or .pdf.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """How the spot price of an instance type went, zone by zone."""
    from starling.cli.market import prices_verb

    prices_verb(instance_type, days=days, regions=regions, plot=plot, as_json=json)


@app.command()
def rehearse(
    spec: SpecFile,
    script: Annotated[
        Path | None,
        typer.Option("--script", metavar="FILE", help="What happens in the region, and when.", show_default=False),
    ] = None,
    trace: Annotated[
        list[str] | None,
        typer.Option(
            "--trace",
            metavar="ZONE=[MEANING:]FILE",
            help="A spot trace that is a zone's capacity; its numbers mean count, available or preempted.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", min=1, help="Region seconds that pass in one second.")] = 12,
    seed: Annotated[int, typer.Option("--seed", help="Decides which machines the script means.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep everything it wrote, and say where.")] = False,
    override: Overrides = None,
    json: Json = False,
) -> None:
    """Play the whole run through on an emulated AWS on this computer, with interruptions, for $0."""
    from starling.cli.rehearse import DEFAULT_SCRIPT, Wish, rehearse_verb

    wish = Wish(
        spec_file=spec,
        overrides=override or [],
        script=script or DEFAULT_SCRIPT,
        traces=trace or [],
        scale=scale,
        seed=seed,
    )
    raise typer.Exit(rehearse_verb(wish, keep=keep, as_json=json))


@app.command()
def ssh(
    run: Run,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Its id; default: the only one.", show_default=False)
    ] = None,
    store: StoreUri = None,
) -> None:
    """Open a shell in a node's folder."""
    from starling.cli.remote import ssh_verb

    ssh_verb(run, node, store)


@app.command()
def put(
    run: Run,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... [NODE:]PATH",
            help="Files, and where to in the node's folder; without NODE: on every node that runs.",
            show_default=False,
        ),
    ],
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Copy files to one node, or to all."""
    from starling.cli.remote import put_verb

    put_verb(run, words, store, as_json=json)


@app.command()
def get(
    run: Run,
    source: Annotated[
        str, typer.Argument(metavar="[NODE:]PATH", help="A file or a folder in the node's folder.", show_default=False)
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to.", show_default=False)],
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Copy a file or a folder from a node."""
    from starling.cli.remote import get_verb

    get_verb(run, source, folder, store, as_json=json)


@app.command()
def schema(json: Json = False, store: StoreUri = None) -> None:
    """JSON Schema of the spec, for editors; JSON with or without --json."""
    from starling.cli.output import emit
    from starling.orchestrator.spec import schema as spec_schema

    emit(spec_schema())
