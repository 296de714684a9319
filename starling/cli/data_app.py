"""The verbs of `starling data`, and their options. What they do is in the modules beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starling.cli.options import Json

data_app = typer.Typer(help="Datasets in the store.", no_args_is_help=True, rich_markup_mode=None)
synth_app = typer.Typer(help="Rendered images with labels.", no_args_is_help=True, rich_markup_mode=None)
data_app.add_typer(synth_app, name="synth")

StoreUri = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="Where datasets given by name live; default: $STARLING_STORE, $STARLING_HOME/store.",
        show_default=False,
    ),
]


Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="Its name in the store, its folder, or its URI.", show_default=False)
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="CSV", help="Table of labels, among the images or anywhere.", show_default=False),
]
ImageColumn = Annotated[
    str | None, typer.Option("--image-column", metavar="NAME", help="Of the table.", show_default=False)
]
LabelColumn = Annotated[
    str | None, typer.Option("--label-column", metavar="NAME", help="Of the table.", show_default=False)
]
PatientColumn = Annotated[
    str | None,
    typer.Option("--patient-column", metavar="NAME", help="Whose image it is: never split.", show_default=False),
]
SplitColumn = Annotated[
    str | None,
    typer.Option("--split-column", metavar="NAME", help="Says train, val or test.", show_default=False),
]
SplitPart = Annotated[
    float | None,
    typer.Option("--split", metavar="PART", help="Part that validates; default: 0.2.", show_default=False),
]
Side = Annotated[
    int | None,
    typer.Option("--size", metavar="PIXELS", help="Make every image a square of this side.", show_default=False),
]


@data_app.command()
def prepare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE DEST",
            help="A folder or URI of images, digits, or rendered-fundus; and the dataset: a name, a folder or a URI.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="SOURCE", help="SOURCE; then only DEST.", show_default=False)
    ] = None,
    labels: Labels = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    split_column: SplitColumn = None,
    split: SplitPart = None,
    side: Side = None,
    crop_retina: Annotated[bool, typer.Option("--crop-retina", help="Cut to the disc of fundus photographs.")] = False,
    quality: Annotated[int, typer.Option("--quality", help="Of JPEG, with --size or --crop-retina.")] = 90,
    lossless: Annotated[bool, typer.Option("--lossless", help="PNG images stay PNG.")] = False,
    shard_size: Annotated[str, typer.Option("--shard-size", metavar="SIZE", help="Of a shard, at most.")] = "32MiB",
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes; default: as many as help.", show_default=False),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Trust nothing that is there: write every shard.")] = False,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Turn labelled images into a dataset: checked, split, and packed into shards. Can be killed and started again."""
    from starling.cli.preparing import Wish, prepare_verb
    from starling.trainer.data.sources.found import LabelTable

    wish = Wish(
        names=names or [],
        source=source,
        labels=LabelTable(
            path=labels,
            image_column=image_column,
            label_column=label_column,
            patient_column=patient_column,
            split_column=split_column,
        ),
        split=split,
        side=side,
        crop_retina=crop_retina,
        quality=quality,
        lossless=lossless,
        shard_size=shard_size,
        workers=workers,
        again=again,
    )
    prepare_verb(wish, store, as_json=json)


@data_app.command()
def inspect(dataset: Dataset, store: StoreUri = None, json: Json = False) -> None:
    """Counts per class and split, sizes, how it was prepared, and what was left out."""
    from starling.cli.dataset_checks import inspect_verb

    inspect_verb(dataset, store, as_json=json)


@data_app.command()
def verify(
    dataset: Dataset,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes; default: one a core.", show_default=False),
    ] = None,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Read every shard: sizes, checksums, and that every image can be decoded. Exits 1 if anything is damaged."""
    from starling.cli.dataset_checks import verify_verb

    raise typer.Exit(verify_verb(dataset, store, workers, as_json=json))


@data_app.command()
def sample(
    dataset: Dataset,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The PNG to write.")] = Path("sheet.png"),
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Of which split.")] = "train",
    per_class: Annotated[int, typer.Option("--per-class", min=1, max=50, help="Images in a row.")] = 6,
    store: StoreUri = None,
    json: Json = False,
) -> None:
    """Draw a contact sheet: a row of images for each class."""
    from starling.cli.dataset_checks import sample_verb

    sample_verb(dataset, out, split, per_class, store, as_json=json)


@synth_app.command()
def fundus(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new or empty folder, or one to go on with.", show_default=False)
    ],
    images: Annotated[int, typer.Option(help="How many; two of each patient.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="All of it follows from this number.", min=0)] = 1,
    size: Annotated[int, typer.Option(help="Pixels a side.", min=32, max=4096)] = 512,
    workers: Annotated[
        int | None, typer.Option(help="Processes; default: one for each core.", min=1, show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Render labelled photographs of the retina, from healthy eyes to the worst stage of diabetic retinopathy."""
    from starling.cli.synth import fundus_verb

    fundus_verb(folder, images=images, seed=seed, size=size, workers=workers, as_json=json)


@data_app.command()
def tiles(
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A folder or URI of whole images.", show_default=False)
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; must not exist.", show_default=False)],
    lesions: Annotated[
        Path, typer.Option("--lesions", metavar="FILE", help="A CSV: image,kind,x,y,radius.", show_default=False)
    ],
    labels: Labels = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    patient_column: PatientColumn = None,
    split_column: SplitColumn = None,
    split: SplitPart = None,
    tile: Annotated[int, typer.Option(help="Pixels a side.", min=16, max=1024)] = 64,
    size: Annotated[
        int | None,
        typer.Option(help="Make every image a square of this side first, as prepare does.", min=16, show_default=False),
    ] = None,
    crop_retina: Annotated[
        bool, typer.Option("--crop-retina", help="Cut to the disc of fundus photographs first, as prepare does.")
    ] = False,
    per_lesion: Annotated[int, typer.Option(help="Tiles around each lesion.", min=1, max=16)] = 2,
    seed: Annotated[int, typer.Option(help="Where the tiles lie follows from it.", min=0)] = 0,
    json: Json = False,
) -> None:
    """Cut images into tiles with and without a lesion, for `prepare`: what a lesion detector is trained on.

    Their splits are those of the whole images if --labels to --split say what they say when those are prepared."""
    from starling.cli.tiles import tiles_verb
    from starling.trainer.data.sources.found import LabelTable
    from starling.trainer.data.tiles import Cut

    table = LabelTable(
        path=labels,
        image_column=image_column,
        label_column=label_column,
        patient_column=patient_column,
        split_column=split_column,
    )
    cut = Cut(tile=tile, size=size, crop_retina=crop_retina, per_lesion=per_lesion, seed=seed, split=split)
    tiles_verb(images, folder, lesions, table, cut, as_json=json)
