"""`gc`: what carries our tags and no live run owns, why, and, if told so, its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from starling.cli.output import clock_time, emit, note, say, table
from starling.infra.errors import Misconfigured, NotAuthorised, StarlingError, StoreError, UsageError
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.inventory import find_resources, remove_resource
from starling.infra.providers.aws.regions import default_region, usable_regions
from starling.infra.providers.aws.stack import read_stack, store_uri
from starling.infra.providers.resources import Resource, ResourceKind
from starling.infra.store import open_store
from starling.infra.store.s3 import S3Store, Upload
from starling.orchestrator.garbage import Fate, Judgement
from starling.orchestrator.ownership import Owners, commit_end


def gc_verb(regions: str | None, store: str | None, stack: str, *, delete: bool, as_json: bool) -> int:
    """The exit code: 1 if something could not be removed."""
    clients = AwsClients(default_region())
    found, owners = list(_everything(clients, _regions(clients, regions), store, stack)), Owners()
    judged = [owners.judge(resource, time.time()) for resource in found]
    failed = dict(_remove_all(clients, judged)) if delete else {}
    if as_json:
        emit({"resources": [_told(judgement, failed, deleted=delete) for judgement in judged]})
    else:
        _say(judged, failed, deleted=delete)
    return 1 if failed else 0


def _regions(clients: AwsClients, regions: str | None) -> list[str]:
    if regions is None:
        return [clients.region]
    return usable_regions(clients, None if regions == "all" else [name.strip() for name in regions.split(",")])


def _everything(clients: AwsClients, regions: Sequence[str], store: str | None, stack: str) -> Iterator[Resource]:
    """Resources of all regions, then unfinished uploads of every store that they name, of each region's stack, and of
    the one that was asked for."""
    stores = {store: clients.region} if store is not None else {}
    for region in regions:
        there = clients.in_region(region)
        for resource in _found(there, alone=len(regions) == 1):
            yield resource
            if resource.store is not None:
                stores.setdefault(resource.store, region)
        if (own := _store_of(there, stack)) is not None:
            stores.setdefault(own, region)
    for uri, region in _once_each(stores):
        try:
            yield from _uploads(uri, region)
        except (StoreError, UsageError) as error:
            if uri == store:
                raise
            note(f"unfinished uploads are not looked for in {uri}: {error}")


def _found(there: AwsClients, *, alone: bool) -> list[Resource]:
    """Of one region; where we may not look, that is said, unless it is the only one: then NotAuthorised is raised."""
    try:
        return find_resources(there)
    except NotAuthorised as error:
        if alone:
            raise
        note(f"{there.region} is not looked at: {error}")
        return []


def _store_of(there: AwsClients, stack: str) -> str | None:
    """In the bucket of a region's stack; None without a set-up there, or where we may not see it."""
    try:
        return store_uri(read_stack(there, stack).bucket, there.region)
    except Misconfigured:
        return None  # no set-up in this region: then there is no bucket either
    except NotAuthorised as error:
        note(f"unfinished uploads of stack {stack} in {there.region} are not looked for: {error}")
        return None


def _once_each(stores: dict[str, str]) -> Iterator[tuple[str, str]]:
    """One store may be known by several URIs: with its endpoint or without."""
    seen: set[str] = set()
    for uri, region in stores.items():
        try:
            name = open_store(uri).uri
        except UsageError:
            name = uri
        if name not in seen:
            seen.add(name)
            yield uri, region


def _uploads(uri: str, region: str) -> Iterator[Resource]:
    store = open_store(uri)
    if not isinstance(store, S3Store):
        return
    for upload in store.unfinished_uploads():
        parts = upload.key.split("/")
        yield Resource(
            kind=ResourceKind.UPLOAD,
            id=upload.id,
            region=region,
            store=uri,
            run=parts[1] if parts[0] == "runs" and len(parts) > 2 else None,
            created_at=upload.begun_at,
            detail=upload.key,
        )


def _remove_all(clients: AwsClients, judged: Iterable[Judgement]) -> Iterator[tuple[str, str]]:
    """Remove garbage; one that cannot be removed does not keep the rest alive. Yields its id and why."""
    for judgement in judged:
        if judgement.fate is not Fate.GARBAGE:
            continue
        try:
            _remove(clients, judgement)
        except StarlingError as error:
            note(f"{judgement.resource.kind} {judgement.resource.id} stays: {error}")
            yield judgement.resource.id, str(error)


def _remove(clients: AwsClients, judgement: Judgement) -> None:
    resource = judgement.resource
    if resource.kind is not ResourceKind.UPLOAD:
        commit_end(resource, f"gc: {judgement.why}", time.time())
        remove_resource(clients, resource)
        return
    store = open_store(resource.store or "")
    assert isinstance(store, S3Store)
    store.abort_upload(Upload(key=resource.detail, id=resource.id, begun_at=resource.created_at or 0.0))


def _told(judgement: Judgement, failed: dict[str, str], *, deleted: bool) -> dict[str, Any]:
    resource = judgement.resource
    removed = deleted and judgement.fate is Fate.GARBAGE and resource.id not in failed
    return {
        "kind": resource.kind.value,
        "id": resource.id,
        "region": resource.region,
        "store": resource.store,
        "run": resource.run,
        "node": resource.node,
        "created_at": resource.created_at,
        "detail": resource.detail,
        "fate": judgement.fate.value,
        "why": judgement.why,
        "deleted": removed,
        "error": failed.get(resource.id),
    }


def _say(judged: list[Judgement], failed: dict[str, str], *, deleted: bool) -> None:
    shown = [judgement for judgement in judged if judgement.fate is not Fate.OWNED]
    owned = len(judged) - len(shown)
    if shown:
        rows = [["what", "id", "region", "run", "since", "detail", "why"]]
        say(table(rows + [_row(judgement) for judgement in shown]))
    garbage = [judgement.resource for judgement in shown if judgement.fate is Fate.GARBAGE]
    say(f"garbage: {len(garbage)}, unknown: {len(shown) - len(garbage)}, owned by live runs: {owned}")
    if deleted:
        say(f"deleted: {sum(resource.id not in failed for resource in garbage)}")
    elif garbage:
        say("nothing was changed; `--delete` removes the garbage")


def _row(judgement: Judgement) -> list[str]:
    resource = judgement.resource
    why = judgement.why if judgement.fate is Fate.GARBAGE else f"unknown: {judgement.why}"
    return [
        resource.kind.value,
        resource.id,
        resource.region,
        resource.run or "-",
        clock_time(resource.created_at),
        resource.detail,
        why,
    ]
