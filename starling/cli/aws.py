"""`aws setup` and `aws teardown`."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import typer

from starling.cli.output import emit, note, say, table
from starling.infra.errors import Misconfigured, UsageError
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.regions import default_region, supported
from starling.infra.providers.aws.setup import SetupPlan, carry_out, plan_setup, site_of
from starling.infra.providers.aws.stack import StackOutputs, describe_stack, outputs_of, read_stack, store_uri
from starling.infra.providers.aws.teardown import bucket_exists, delete_stack, living_machines, remove_leftovers
from starling.infra.providers.aws.teardown import delete_bucket as remove_bucket
from starling.infra.store import open_store
from starling.orchestrator.reading import RunReader, list_runs, read_verdict


def setup_verb(region: str | None, stack: str, vpc: str | None, *, dry_run: bool, as_json: bool) -> None:
    clients = AwsClients(supported(region or default_region()))
    plan = plan_setup(clients, stack, vpc)
    if not as_json:
        _say_plan(plan, dry_run=dry_run)
    if not dry_run and not plan.nothing_to_do:
        carry_out(clients, plan, note)
    made = None if dry_run else read_stack(clients, stack)
    if as_json:
        emit(_plan_told(plan, made, dry_run=dry_run))
    elif made is not None:
        say(f"store: {store_uri(made.bucket, clients.region)}")
        say(f"policy for those who run training: {made.user_policy}")
        say(f"next: starling doctor --region {clients.region}")


def teardown_verb(region: str | None, stack: str, *, delete_bucket: bool, yes: bool, as_json: bool) -> None:
    clients = AwsClients(region or default_region())
    found = describe_stack(clients, stack)
    bucket = (outputs_of(found).get("Bucket") if found else None) or site_of(clients, stack).bucket
    _refuse_while_alive(clients, stack, bucket)
    there = bucket_exists(clients, bucket)
    if not yes and (found is not None or (delete_bucket and there)):
        _confirm(stack, clients.region, bucket if delete_bucket and there else None)
    remove_leftovers(clients, stack, note)
    if found is not None:
        delete_stack(clients, stack, note)
    if delete_bucket:
        remove_bucket(clients, bucket, note)
    kept = bucket if there and not delete_bucket else None
    if as_json:
        emit({"stack": stack, "region": clients.region, "removed": found is not None, "bucket_kept": kept})
        return
    say(f"removed stack {stack} in {clients.region}" if found else f"there is no stack {stack} in {clients.region}")
    if kept is not None:
        say(
            f"the bucket {kept} stays, with everything in it and closed to the public, but without the policy that "
            "refuses plain HTTP, which went with the stack; the next `starling aws setup` takes it over"
        )


def _say_plan(plan: SetupPlan, *, dry_run: bool) -> None:
    where = f"stack {plan.site.stack} in {plan.site.region} of account {plan.site.account}, {plan.vpc}"
    if plan.nothing_to_do:
        say(f"{where} is up to date: nothing to do")
        return
    say(f"{where} {'would change' if dry_run else 'changes'}:")
    say(table([["", "kind", "name"], *([change.what, change.kind, change.name] for change in plan.changes)]))
    if dry_run:
        say("nothing was changed; the same without --dry-run does it")


def _plan_told(plan: SetupPlan, made: StackOutputs | None, *, dry_run: bool) -> dict[str, Any]:
    return {
        "stack": plan.site.stack,
        "region": plan.site.region,
        "account": plan.site.account,
        "vpc": plan.vpc,
        "dry_run": dry_run,
        "changes": [dataclasses.asdict(change) for change in plan.changes],
        "outputs": dataclasses.asdict(made) if made is not None else None,
        "store": store_uri(plan.site.bucket, plan.site.region),
        "template": plan.template,
    }


def _refuse_while_alive(clients: AwsClients, stack: str, bucket: str) -> None:
    """Raises Misconfigured that names the runs and machines that live."""
    machines = [found.id for found in living_machines(clients, stack)]
    runs = _living_runs(store_uri(bucket, clients.region)) if bucket_exists(clients, bucket) else []
    if runs:
        raise Misconfigured(
            f"runs in the store of stack {stack} are not over: {', '.join(runs)}; stop them first (`starling stop RUN "
            f"--store '{store_uri(bucket, clients.region)}'`)"
        )
    if machines:
        raise Misconfigured(
            f"machines of stack {stack} still run in {clients.region}: {', '.join(machines)}; see `starling gc`"
        )


def _living_runs(uri: str) -> list[str]:
    store = open_store(uri)
    return [
        run for run in list_runs(store) if read_verdict(store, run, RunReader(store, run).record().incarnation) is None
    ]


def _confirm(stack: str, region: str, bucket: str | None) -> None:
    """Raises UsageError if nobody can be asked, or the answer is no."""
    what = f"stack {stack} in {region}"
    if bucket is not None:
        what += f" and the bucket {bucket} with every run, checkpoint and dataset in it"
    if not sys.stdin.isatty():
        raise UsageError(f"this removes {what}: say so with --yes")
    if not typer.confirm(f"remove {what}?", err=True):
        raise UsageError("nothing was removed")
