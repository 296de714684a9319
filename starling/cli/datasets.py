"""`data prepare`, and what `plan` and `run` need of datasets."""

from __future__ import annotations

import shlex
from pathlib import Path

from starling.cli.opening import store_for
from starling.cli.output import emit, note, say
from starling.infra.errors import UsageError
from starling.infra.store import Store
from starling.orchestrator.datasets import dataset_size, is_place
from starling.orchestrator.spec import Spec


def prepare_verb(names: list[str], source: str | None, store: str | None, *, as_json: bool) -> None:
    """`prepare SOURCE DEST`, or `prepare [DEST] --from SOURCE`."""
    from starling.trainer.data.prepare import prepare

    if source is None:
        if len(names) != 2:
            raise UsageError("give SOURCE and DEST (starling data prepare FOLDER NAME), or --from digits [NAME]")
        source, name = names
    elif len(names) > 1:
        raise UsageError(f"with --from there is only one name, the dataset's; drop {names[0]}")
    elif names:
        name = names[0]
    elif source == "digits":
        name = "digits"
    else:
        raise UsageError(f"name the dataset: starling data prepare NAME --from {shlex.quote(source)}")
    summary = prepare(source, store_for(store), name, progress=note)
    if as_json:
        emit(summary)
    else:
        splits = ", ".join(f"{split}: {count}" for split, count in summary["splits"].items())
        say(f"dataset {name} is at {summary['uri']} ({splits})")


def size_now(spec: Spec, spec_file: Path, store: Store) -> int | None:
    """Training samples, without preparing anything; None if that cannot be told."""
    if spec.data is None:
        return None
    size = dataset_size(store, spec.data.dataset)
    if size is None and spec.data.source is not None:
        from starling.trainer.data.source import find_images

        images = find_images(_source(spec.data.source, spec_file)).images
        size = sum(image.split == "train" for image in images)
    return size


def ensure_dataset(spec: Spec, spec_file: Path, store: Store) -> int | None:
    """Training samples of the spec's dataset, prepared now if it is missing. Raises UsageError if it cannot be."""
    if spec.data is None:
        return None
    name, source = spec.data.dataset, spec.data.source
    size = dataset_size(store, name)
    if size is not None:
        return size
    if source is None or is_place(name):
        digits = name == "digits"
        command = ["starling", "data", "prepare", name, "--from", "digits" if digits else "FOLDER_OF_IMAGES"]
        where = f"at {name}" if is_place(name) else f"called {name} in {store.uri}"
        raise UsageError(
            f"{spec_file}: data.dataset: there is no dataset {where}; prepare it with: "
            f"{shlex.join([*command, '--store', store.uri])} (or give data.source)"
        )
    from starling.trainer.data.prepare import prepare

    prepare(_source(source, spec_file), store, name, progress=note)
    return dataset_size(store, name)


def _source(source: str, spec_file: Path) -> str:
    """A relative image folder is meant relative to the spec."""
    return source if source == "digits" else str(spec_file.parent / Path(source).expanduser())
