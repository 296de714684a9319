"""`evaluate`: a run's model on a dataset, as tables, JSON and a page."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starling.cli.evaluation_text import print_evaluation
from starling.cli.judging import check_choice, training_packages
from starling.cli.opening import OpenRun, store_for
from starling.cli.output import note, say
from starling.infra.errors import NoRoom, UsageError
from starling.infra.files import read_json, write_atomically

JSON_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the user asked for."""

    run: str
    dataset: str | None
    split: str | None
    step: int | None
    best: str | None
    out: Path | None
    device: str
    batch: int | None
    resamples: int
    store_uri: str | None


def evaluate_verb(wish: Wish, *, as_json: bool) -> None:
    """Both files are written, whole, before anything is printed."""
    check_choice(wish.device, wish.step, wish.best)
    folder = (wish.out or Path(f"evaluation-{wish.run}")).expanduser().absolute()
    store = store_for(wish.store_uri)
    OpenRun(store, wish.run)  # an unknown run is reported before torch is imported
    _check_folder(folder, wish.run)
    with training_packages():
        from starling.trainer.judging.checkpoints import Choice
        from starling.trainer.judging.judge import judge
        from starling.trainer.judging.loading import open_model
        from starling.trainer.judging.page import page
    choice = Choice(step=wish.step, best=wish.best)
    with (
        open_model(store, wish.run, choice, device=wish.device, dataset=wish.dataset, note=note) as loaded,
        _progress() as tick,
    ):
        command = shlex.join(["starling", *sys.argv[1:]])  # as it was typed
        judgement = judge(
            store,
            loaded,
            split=wish.split,
            command=command,
            batch=wish.batch,
            resamples=wish.resamples,
            tick=tick,
        )
    document = judgement.evaluation.model_dump_json(indent=2)
    _write(folder, {JSON_FILE: document, PAGE_FILE: page(judgement.evaluation, judgement.thumbnails)})
    if as_json:
        say(document)
    else:
        print_evaluation(judgement.evaluation)
        say(f"report: {folder / PAGE_FILE} and {JSON_FILE}")


def _check_folder(folder: Path, run: str) -> None:
    """Only an evaluation of the same run is written over."""
    there = [folder / name for name in (JSON_FILE, PAGE_FILE) if (folder / name).exists()]
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: it is a file; name a folder")
    if not there:
        return
    try:
        told = read_json(folder / JSON_FILE)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("run") != run:
        raise UsageError(f"--out {folder}: {there[0].name} there is of another run; name another folder")


def _write(folder: Path, files: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content.encode())
    except OSError as error:
        kind = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else UsageError
        raise kind(f"cannot write the report to {folder}: {error.strerror or error}") from error


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """What is being done, and how far it is, on stderr; only for people who watch."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {}

        def tick(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=done)

        yield tick
