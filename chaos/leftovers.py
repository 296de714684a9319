"""What a run that is over has left behind, and should not have."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import boto3.session
import psutil

from chaos.lookout import Lookout
from chaos.scene import RUN, Scene
from starling.infra import layout
from starling.infra.store import Store
from starling.infra.store.folder import FolderStore
from starling.trainer.checkpoint.manifest import take_inventory


def leftovers(scene: Scene) -> list[str]:
    """Everything that was found, in words."""
    return [*_processes(scene), *_files(scene), *_folder_store(scene.store), *_parts(scene.store)]


def remarks(store: Store) -> list[str]:
    """What is left as documented, for a person or a rule of the bucket to remove."""
    uploads = _multipart_uploads(store)
    return [f"{uploads} unfinished multipart uploads: AbortIncompleteMultipartUpload removes them"] if uploads else []


def _processes(scene: Scene) -> Iterator[str]:
    for pid, node in Lookout(scene).processes().items():
        try:
            process = psutil.Process(pid)
            ports = [c.laddr.port for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            command = " ".join(process.cmdline()[:6])
        except psutil.Error:
            continue  # it ended just now
        listening = f", listening on {ports}" if ports else ""
        yield f"process {pid} of {node or 'no node'}{listening}: {command}"


def _files(scene: Scene) -> Iterator[str]:
    yield from (f"temporary file {path.name}" for path in scene.temporary.iterdir())
    yield from (f"node folder {path.name}" for path in (scene.home / "nodes").glob("*"))
    controllers = scene.home / "controllers"
    for path in controllers.iterdir():
        if path.suffix not in (".lock", ".log"):
            yield f"file of a controller {path.name}"
        elif path.suffix == ".lock" and _is_locked(path):
            yield f"lock {path.name} is held"


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _folder_store(store: Store) -> Iterator[str]:
    """What killed writers left is swept by whoever writes next, if they are known to be dead; so somebody writes."""
    if not isinstance(store, FolderStore):
        return
    root = Path(store.uri)
    next_user = FolderStore(root)
    next_user.put("sweep", b"")
    next_user.delete("sweep")
    yield from (f"staged file {path.name} in the store" for path in (root / ".starling" / "staging").iterdir())
    for path in root.rglob(".*"):
        if path.name != ".starling":
            yield f"temporary file {path.relative_to(root)} in the store"


def _parts(store: Store) -> Iterator[str]:
    there = take_inventory(store, layout.checkpoints(RUN))
    if not there.committed:
        yield "no checkpoint"
        return
    yield from (f"parts of step {step}, which was never committed" for step in there.begun)
    # Those of the newest checkpoint would be removed after the next one.
    yield from (f"unnamed parts of step {step}" for step in there.crowded if step != there.committed[-1])


def _multipart_uploads(store: Store) -> int:
    place = urlsplit(store.uri)
    if place.scheme != "s3":
        return 0
    options = dict(parse_qsl(place.query))
    client = boto3.session.Session(region_name=options["region"]).client("s3", endpoint_url=options["endpoint_url"])
    return len(client.list_multipart_uploads(Bucket=place.netloc).get("Uploads", []))
