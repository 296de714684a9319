"""What a model starts from: `model.weights` of the spec."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import nn

from starling.infra.clock import SystemClock
from starling.infra.errors import ObjectNotFound, UsageError
from starling.infra.store import Store
from starling.infra.store.anywhere import Storage, open_storage
from starling.infra.store.locks import locked
from starling.trainer.checkpoint.files import DamagedFile, read_tensors
from starling.trainer.models.build import EFFICIENTNET_LITE0, TORCHVISION
from starling.trainer.models.efficientnet_lite import from_package
from starling.trainer.models.head import head_path
from starling.trainer.models.vendor_files import PATIENCE, efficientnet_lite0, torchvision_imagenet
from starling.trainer.task import TaskContext

log = logging.getLogger(__name__)

IMAGENET = "imagenet"
NEEDS = "needs:"
SAFE = ".safetensors"
NAMED = 4
"""Tensors that a message names."""


def start_from(model: nn.Module, context: TaskContext) -> None:
    """Give a freshly built model of `models.build` the weights that `model.weights` names, if it names any.

    The head is left fresh if its shape is another one.

    Raises:
        UsageError: there are no such weights, or they do not fit.
    """
    source = context.model_weights
    if source is None:
        return
    if source == IMAGENET:
        tensors = _imagenet(model, context.model_name or "", context.cache_dir / "weights")
    elif source.startswith(NEEDS):
        from starling.trainer.needs import needed  # it loads tasks, and so imports this

        tensors = needed(context, source.removeprefix(NEEDS)).weights()
    else:
        tensors = read_file(context.store, source, context.cache_dir / "weights")
    fresh = put_weights(model, tensors, source)
    log.info("the model starts from %s; %s", source, f"fresh: {', '.join(fresh)}" if fresh else "nothing is fresh")


def put_weights(model: nn.Module, tensors: dict[str, torch.Tensor], source: str, head: str | None = None) -> list[str]:
    """Copy tensors into a model, by name; returns the head's tensors that were left fresh: the whole head, unless all
    of it is there in its shape. `head` is its module path (None: `head_path`).

    UsageError if anything else is missing, has another shape, or has no place.
    """
    own, head = model.state_dict(), head_path(model) if head is None else head
    in_head = {name for name in own if name.startswith(f"{head}.")}
    head_fits = all(name in tensors and tensors[name].shape == own[name].shape for name in in_head)
    wanted = own.keys() if head_fits else own.keys() - in_head
    _check_fit({name: own[name] for name in wanted}, tensors, head, source)
    with torch.no_grad():
        for name in wanted & tensors.keys():
            own[name].copy_(tensors[name])
    return [] if head_fits else sorted(in_head)


def read_file(store: Store, name: str, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file: a key of the store, or a URI. Fetched into `folder` once a node.

    Raises:
        UsageError: it is no such file, or not there.
    """
    storage, key = _place(store, name)
    if not key.endswith(SAFE):
        raise UsageError(
            f"model.weights: {name} is no {SAFE} file. Other files (.pth, .pt, .bin) can hold programs, so they are "
            "not read; docs/tasks.md has the line that converts one"
        )
    try:
        version = storage.stat(key).tag
    except ObjectNotFound:
        raise UsageError(
            f"model.weights: there is no {key} in {storage.uri}; give imagenet, needs:NAME, a {SAFE} file's key in the "
            "store, or its URI"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (hashlib.sha256(f"{storage.uri} {key} {version}".encode()).hexdigest()[:32] + SAFE)
    with locked(folder, path.name, SystemClock(), PATIENCE):
        if not path.exists():
            storage.download(key, path)
    try:
        return read_tensors(path)
    except DamagedFile as error:
        path.unlink(missing_ok=True)  # another rank may have been as quick
        raise UsageError(f"model.weights: {name} is no safetensors file, or a damaged one: {error}") from error


def _imagenet(model: nn.Module, name: str, folder: Path) -> dict[str, torch.Tensor]:
    if name == EFFICIENTNET_LITE0:
        return from_package(efficientnet_lite0())
    if not name.startswith(TORCHVISION):
        raise UsageError(f"model.weights: {name} has no ImageNet weights; use {EFFICIENTNET_LITE0}, or drop it")
    given = torchvision_imagenet(name.removeprefix(TORCHVISION), folder)
    # DenseNet's file writes norm.1 for norm1. What the model lacks are second outputs, which it was built without.
    own = {key.replace(".", ""): key for key in model.state_dict()}
    return {own[plain]: tensor for key, tensor in given.items() if (plain := key.replace(".", "")) in own}


def _place(store: Store, name: str) -> tuple[Storage, str]:
    if "://" not in name and not name.startswith("/"):
        return store, name
    path, mark, options = name.partition("?")
    folder, _, key = path.rpartition("/")
    return open_storage(folder + mark + options), key


def _check_fit(wanted: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], head: str, source: str) -> None:
    complaints = [
        f"{name} is {list(tensors[name].shape)} there and {list(tensor.shape)} in the model"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    # Files of old versions lack the count of batches, which nothing is computed from.
    lacking = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    strange = [name for name in tensors if name not in wanted and not name.startswith(f"{head}.")]
    complaints += [f"{name} is missing" for name in lacking] + [f"{name} has no place in the model" for name in strange]
    if complaints:
        more = f" (and {len(complaints) - NAMED} more)" if len(complaints) > NAMED else ""
        raise UsageError(
            f"model.weights: the tensors of {source} do not fit the model: {'; '.join(complaints[:NAMED])}{more}"
        )
