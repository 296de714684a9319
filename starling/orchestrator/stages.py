"""A spec and the specs that it needs, in the order in which their runs can be done; how these become runs.

    needs: {main: high-res.yaml, lesions: lesions.yaml}       # high-res.yaml in turn: needs: {low: low-res.yaml}

`starling run` of that makes four runs: R-main-low, R-main, R-lesions and R. Whatever ends in .yaml or .yml, or has a
slash, is a spec file, relative to the spec that names it; anything else is the id of a run in the same store. A file
that is needed twice is one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starling.infra.clock import Clock, SystemClock
from starling.infra.code import pack_code
from starling.infra.errors import UsageError
from starling.infra.store import Store
from starling.orchestrator.loading import code_folder, load_spec
from starling.orchestrator.needs import why_broken
from starling.orchestrator.reading import RunReader, read_spec
from starling.orchestrator.runs import code_left_out, create_run, new_run_id, run_exists
from starling.orchestrator.spec import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One spec of a chain."""

    path: tuple[str, ...]
    """The names of the needs that lead to it; of the spec that was asked for: none."""
    spec_file: Path
    spec: Spec
    """As it was written: its needs name files or runs."""
    files: dict[str, Path]
    """Name of a need -> the spec file it is made from (resolved); needs that name a run are not in here."""

    @property
    def title(self) -> str:
        """Its names from the asked-for spec on, such as main.low."""
        return ".".join(self.path)

    @property
    def named_runs(self) -> dict[str, str]:
        """Name of a need -> id of a run that is to be there already."""
        return {name: value for name, value in self.spec.needs.items() if name not in self.files}

    def run_id(self, run: str) -> str:
        """Of its run, where the asked-for spec's is `run`."""
        return "-".join([run, *(name.replace("_", "-") for name in self.path)])


def load_stages(spec_file: Path, overrides: list[str], provider: str | None = None) -> list[Stage]:
    """The spec and all that it needs: what is needed comes first, the spec itself last.

    `overrides` concern the spec itself, `provider` all of them. Raises UsageError for a spec that is wrong or missing,
    and for needs that lead back to where they come from.
    """
    chosen = [f"provider.name={provider}"] if provider is not None else []
    found: dict[Path, Stage] = {}

    def visit(file: Path, path: tuple[str, ...], above: tuple[Path, ...]) -> None:
        key = file.resolve()
        if key in found:
            return
        spec = load_spec(file, [*(overrides if not path else []), *chosen])
        files = {name: (file.parent / value) for name, value in spec.needs.items() if _is_file(value)}
        chain = (*above, file)
        for name, needed in files.items():
            _check_file(name, needed, chain)
            visit(needed, (*path, name), chain)
        resolved = {name: needed.resolve() for name, needed in files.items()}
        found[key] = Stage(path=path, spec_file=file, spec=spec, files=resolved)

    visit(spec_file, (), ())
    return list(found.values())


def check_named_runs(store: Store, stages: list[Stage]) -> None:
    """Raises UsageError if a run that is named is not there, or will never be done."""
    for stage in stages:
        for name, run in stage.named_runs.items():
            RunReader(store, run).record()
            if why := why_broken(RunReader(store, run).as_need(name)):
                raise UsageError(f"{stage.spec_file}: needs.{name}: {why}; resume it first")


def create_stages(
    store: Store, stages: list[Stage], *, name: str | None = None, clock: Clock | None = None
) -> list[str]:
    """Write down the runs of all stages, what is needed first; their ids in that order. Nothing is launched.

    Called again after it was cut off, with the same `name`, it takes the runs that are there already. Raises
    UsageError, before anything is written, if one of the names is taken by another run.
    """
    clock = clock or SystemClock()
    run = new_run_id(stages[-1].spec, name, clock)
    ids = {stage.spec_file.resolve(): new_run_id(stage.spec, stage.run_id(run), clock) for stage in stages}
    if len(set(ids.values())) < len(ids):
        raise UsageError(f"needs: two of the runs would be called alike ({', '.join(ids.values())}); rename one need")
    if len(stages) > 1 and run_exists(store, run):
        raise UsageError(f"there is a run {run} already in {store.uri}; `starling resume {run}` goes on with it")
    pinned = [(ids[stage.spec_file.resolve()], stage, _pinned(stage, ids)) for stage in stages]
    missing = [(run_id, stage, spec) for run_id, stage, spec in pinned if not _is_there(store, run_id, stage, spec)]
    for run_id, stage, spec in missing:
        create_run(store, spec, name=run_id, code=code_folder(stage.spec, stage.spec_file), clock=clock)
    return list(ids.values())


def runs_to_control(store: Store, run: str) -> list[str]:
    """The run, and all that it needs, directly or not, as far as that is not over; what is needed first."""
    found: list[str] = []

    def visit(each: str) -> None:
        reader = RunReader(store, each)
        if each in found or not run_exists(store, each):
            return
        record = reader.record()
        if each != run and reader.verdict(record) is not None:
            return
        for needed in reader.spec(record).needs.values():
            visit(needed)
        found.append(each)

    visit(run)
    return found


def _is_file(value: str) -> bool:
    return "/" in value or value.endswith((".yaml", ".yml"))


def _check_file(name: str, needed: Path, chain: tuple[Path, ...]) -> None:
    """Raises UsageError that names the chain which leads there."""
    told = " -> ".join(str(file) for file in (*chain, needed))
    if needed.resolve() in [file.resolve() for file in chain]:
        raise UsageError(f"{chain[-1]}: needs.{name}: {told} goes round in a circle: none of these could ever begin")
    if not needed.is_file():
        raise UsageError(
            f"{chain[-1]}: needs.{name}: there is no spec file {needed} ({told}); write its path from "
            f"{chain[-1].parent}/, or the id of a run in the store"
        )


def _pinned(stage: Stage, ids: dict[Path, str]) -> Spec:
    """The spec with a run's id for every need."""
    needs = stage.named_runs | {name: ids[file] for name, file in stage.files.items()}
    return stage.spec.model_copy(update={"needs": {name: needs[name] for name in stage.spec.needs}})


def _is_there(store: Store, run: str, stage: Stage, spec: Spec) -> bool:
    """Whether a needed run was created before. Raises UsageError if it is another one, or will never be done."""
    if not stage.path or not run_exists(store, run):
        return False
    folder = code_folder(stage.spec, stage.spec_file)
    code = pack_code(folder, store, leave_out=code_left_out(spec)) if folder is not None else None
    if read_spec(store, run, 0).resolved() != spec.resolved() or RunReader(store, run).record().code_sha256 != code:
        raise UsageError(
            f"there is a run {run} already in {store.uri}, made from another spec or other code than "
            f"{stage.spec_file}; choose another --name"
        )
    if why := why_broken(RunReader(store, run).as_need(stage.path[-1])):
        raise UsageError(f"{why}; `starling resume {run}` first, or choose another --name")
    return True
