"""The verbs that look at a run's model, and their options. What they do is in the modules beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starling.cli.options import Json, Run

StoreUri = Annotated[
    str | None,
    typer.Option("--store", metavar="URI", help="Default: $STARLING_STORE, $STARLING_HOME/store.", show_default=False),
]
Step = Annotated[
    int | None,
    typer.Option("--step", metavar="N", help="Of this checkpoint; default: the newest.", show_default=False),
]
Best = Annotated[
    str | None,
    typer.Option(
        "--best", metavar="METRIC", help="Of the epoch where this validation metric was best.", show_default=False
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="auto: as the spec says.")]


def evaluate(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DATASET", help="Another one of the same classes: name or URI.", show_default=False
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Default: what the run validates on: val, or else test.", show_default=False),
    ] = None,
    step: Step = None,
    best: Best = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="For the report; default: evaluation-RUN.", show_default=False),
    ] = None,
    device: Device = "auto",
    batch: Annotated[
        int | None,
        typer.Option("--batch", metavar="N", min=1, help="Images at a time; default: as training.", show_default=False),
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", metavar="N", min=0, help="For the confidence intervals; 0: none.")
    ] = 1000,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Judge a run's model on a dataset: tables here, and a report as JSON and as one HTML file."""
    from starling.cli.evaluating import Wish, evaluate_verb

    wish = Wish(
        run=run,
        dataset=data,
        split=split,
        step=step,
        best=best,
        out=out,
        device=device,
        batch=batch,
        resamples=resamples,
        store_uri=store,
    )
    evaluate_verb(wish, as_json=json)


def predict(
    run: Run,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="PNG or JPEG files, folders of them, or URIs.", show_default=False),
    ],
    step: Step = None,
    best: Best = None,
    device: Device = "auto",
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Ask a run's model about images. Exits with 2 if one of them cannot be read."""
    from starling.cli.predicting import predict_verb

    raise typer.Exit(predict_verb(run, images, store, step=step, best=best, device=device, as_json=json))
