"""What the orchestrator must know of a dataset: whether it is there, and how many training samples it has."""

from __future__ import annotations

import json

from starling.infra import layout
from starling.infra.errors import ObjectCorrupt, ObjectNotFound
from starling.infra.store import Store
from starling.infra.store.anywhere import Storage, open_storage

INDEX = "index.json"
"""Written last by `starling data prepare`: a dataset exists once its index does."""


def dataset_size(store: Store, dataset: str) -> int | None:
    """Training samples of a dataset given by name or as a URI; None if there is no such dataset."""
    place: Storage
    if is_place(dataset):
        place, key = open_storage(dataset), INDEX
    else:
        place, key = store, layout.dataset(dataset) + INDEX
    try:
        return len(json.loads(place.get(key).data)["splits"]["train"]["samples"])
    except ObjectNotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectCorrupt(f"{key} in {place.uri} is no dataset index; prepare the dataset again") from error


def is_place(dataset: str) -> bool:
    """Whether a spec's `data.dataset` is a URI rather than a name in the run's own store."""
    return "://" in dataset or dataset.startswith("/")
