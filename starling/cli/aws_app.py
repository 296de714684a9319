"""The verbs that care for an AWS account, and their options: `aws setup`, `aws teardown`, `doctor`, `gc`."""

from __future__ import annotations

from typing import Annotated

import typer

from starling.cli.options import Json

aws_app = typer.Typer(help="The set-up in an AWS account.", no_args_is_help=True, rich_markup_mode=None)

Region = Annotated[
    str | None,
    typer.Option(
        "--region", metavar="REGION", help="Default: $AWS_REGION, the profile's, us-east-1.", show_default=False
    ),
]
Stack = Annotated[str, typer.Option("--stack", metavar="NAME", help="Name of the set-up.")]


@aws_app.command()
def setup(
    region: Region = None,
    stack: Stack = "starling",
    vpc: Annotated[
        str | None,
        typer.Option(
            "--vpc", metavar="ID", help="Where nodes live; default: the region's default VPC.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be created or changed.")] = False,
    json: Json = False,
) -> None:
    """Make, or bring up to date, what runs on AWS need: bucket, roles, security group, launch template, event queue."""
    from starling.cli.aws import setup_verb

    setup_verb(region, stack, vpc, dry_run=dry_run, as_json=json)


@aws_app.command()
def teardown(
    region: Region = None,
    stack: Stack = "starling",
    delete_bucket: Annotated[
        bool, typer.Option("--delete-bucket", help="The bucket too, with every run, checkpoint and dataset in it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove the set-up. Refuses while runs live; keeps the bucket unless told."""
    from starling.cli.aws import teardown_verb

    teardown_verb(region, stack, delete_bucket=delete_bucket, yes=yes, as_json=json)


def doctor(region: Region = None, stack: Stack = "starling", json: Json = False) -> None:
    """Check everything that a run on AWS needs, and say how to put right what is not."""
    from starling.cli.doctor import doctor_verb

    raise typer.Exit(doctor_verb(region, stack, as_json=json))


def gc(
    regions: Annotated[
        str | None,
        typer.Option("--regions", metavar="all|A,B", help="Where to look; default: one region.", show_default=False),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove the garbage. Without it nothing is changed.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URI", help="Look for unfinished uploads here too.", show_default=False),
    ] = None,
    stack: Stack = "starling",
    json: Json = False,
) -> None:
    """Find what carries our tags and no live run owns: instances, volumes, templates, fleets, unfinished uploads."""
    from starling.cli.gc import gc_verb

    raise typer.Exit(gc_verb(regions, store, stack, delete=delete, as_json=json))
