"""What `plan` and `run` need of datasets: how large one is, and that it is there."""

from __future__ import annotations

import shlex
from pathlib import Path

from starling.cli.output import note
from starling.infra.errors import UsageError
from starling.infra.store import Store
from starling.orchestrator.datasets import dataset_size, is_place
from starling.orchestrator.spec import Spec


def size_now(spec: Spec, spec_file: Path, store: Store) -> int | None:
    """Training samples, without preparing anything; None if that cannot be told."""
    if spec.data is None:
        return None
    size = dataset_size(store, spec.data.dataset)
    if size is None and spec.data.source is not None:
        from starling.trainer.data.prepare import count_training

        size = count_training(_source(spec.data.source, spec_file))
    return size


def ensure_dataset(spec: Spec, spec_file: Path, store: Store) -> int | None:
    """Training samples of the spec's dataset, prepared now if it is missing. Raises UsageError if it cannot be."""
    if spec.data is None:
        return None
    name, source = spec.data.dataset, spec.data.source
    size = dataset_size(store, name)
    if size is not None:
        return size
    if source is None:
        where = f"at {name}" if is_place(name) else f"called {name} in {store.uri}"
        at = [] if is_place(name) else ["--store", store.uri]
        command = ["starling", "data", "prepare", "digits" if name == "digits" else "FOLDER_OF_IMAGES", name, *at]
        raise UsageError(
            f"{spec_file}: data.dataset: there is no dataset {where}; prepare it with: {shlex.join(command)} "
            "(or give data.source)"
        )
    from starling.trainer.data.prepare import prepare

    prepare(_source(source, spec_file), store, name, progress=note)
    return dataset_size(store, name)


def _source(source: str, spec_file: Path) -> str:
    """A relative image folder is meant relative to the spec."""
    from starling.trainer.data.sources.built_in import BUILT_IN

    if source in BUILT_IN or "://" in source:
        return source
    return str(spec_file.parent / Path(source).expanduser())
