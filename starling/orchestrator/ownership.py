"""What a store says of the owner of a resource, and the word that must be in it before a machine is ended."""

from __future__ import annotations

from starling.infra import layout
from starling.infra.errors import ObjectNotFound, StarlingError, UsageError
from starling.infra.providers.resources import Resource, ResourceKind
from starling.infra.records import NodeIntent, RunRecord, Termination
from starling.infra.store import Store, open_store
from starling.infra.store.change import change_object
from starling.orchestrator.garbage import Judgement, Owner, Unreadable, judge
from starling.orchestrator.reading import read_verdict


class Owners:
    """Asks each store about each run once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], Owner | Unreadable] = {}

    def judge(self, resource: Resource, now: float) -> Judgement:
        """Reads the store after the resource was listed, so that what has no intent is really a stray."""
        if resource.store is None or (resource.run is None and resource.kind is not ResourceKind.UPLOAD):
            return judge(resource, None, now)
        key = resource.store, resource.run
        if key not in self._known:
            self._known[key] = _read(*key)
        return judge(resource, self._known[key], now)


def commit_end(resource: Resource, reason: str, now: float) -> None:
    """Write the terminate intent of a machine that has an intent: no controller then takes it for its own. Raises
    StoreError; then it must not be ended."""
    if resource.kind is not ResourceKind.INSTANCE or resource.node is None or resource.store is None:
        return
    store, key = open_store(resource.store), layout.intent(resource.node)
    try:
        intent = NodeIntent.from_bytes(store.get(key).data)
    except ObjectNotFound:
        return
    if intent.instance_id not in (None, resource.id):
        return  # the node is another machine, which stays

    def say_so(data: bytes | None) -> bytes:
        if data is None:
            raise ObjectNotFound(f"{key} was removed while {resource.id} was being ended")
        found = NodeIntent.from_bytes(data)
        ended = found.but(terminate=found.terminate or Termination(at=now, reason=reason))
        return data if ended == found else ended.to_bytes()

    change_object(store, key, say_so)


def _read(uri: str, run: str | None) -> Owner | Unreadable:
    try:
        return _owner(open_store(uri), run)
    except UsageError as error:
        return Unreadable(why=f"{uri} is no store's URI: {error}")
    except StarlingError as error:
        return Unreadable(why=str(error))


def _owner(store: Store, run: str | None) -> Owner:
    if run is None:
        return Owner(run=None)
    intents = {}
    for info in store.list(layout.nodes_of(run)):
        node = info.key.split("/")[1]
        if info.key == layout.intent(node):
            intents[node] = NodeIntent.from_bytes(store.get(info.key).data)
    try:
        record = RunRecord.from_bytes(store.get(layout.run_record(run)).data)
    except ObjectNotFound:
        return Owner(run=None, intents=intents)
    return Owner(run=record, verdict=read_verdict(store, run, record.incarnation), intents=intents)
