"""The spec: what to train, on what, within which limits. Read from YAML by `loading.py`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from starling.orchestrator.command_section import CommandSection
from starling.orchestrator.fusion_rules import FUSION_MODELS, fusion_problems
from starling.orchestrator.provider_sections import LocalSection, Provider, SshSection
from starling.orchestrator.sections import (
    CheckpointSection,
    DataSection,
    LimitsSection,
    Model,
    NodesSection,
    Problems,
    Section,
    Task,
    TrainingSection,
)

OWN_MODELS = ("small-cnn", "efficientnet-lite0", "pratt-cnn")
"""Models of the built-in tasks besides torchvision's."""


class Spec(Section):
    """A validated spec. `resolved()` is what a run stores and what its nodes read."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Starts the id of every run of this spec; lower-case letters, digits and '-'."""
    task: Task | None = None
    """What is learned: a built-in task, or `module:Class` of your own code; required without `command`."""
    model: Model | None = None
    """What learns; required for built-in tasks."""
    data: DataSection | None = None
    """What it learns from; required for built-in tasks."""
    needs: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,19}$")], str] = Field(default_factory=dict)
    """Runs that must be done before this one begins: name -> spec file (relative to this one; `run` starts it too), or
    the id of a run in the same store."""
    code: str | None = None
    """Folder with your own code, relative to the spec file; required for a task or a script of your own."""
    setup: list[str] = Field(default_factory=list)
    """Shell commands that make a node ready, run in the code folder before training; once on each node."""
    command: CommandSection | None = None
    """A script of your own instead of a task: it trains, saves and resumes by itself."""
    training: TrainingSection | None = None
    """How it learns; required without `command`."""
    checkpoint: CheckpointSection = CheckpointSection()
    """What is kept on the way."""
    nodes: NodesSection = NodesSection()
    """How many machines, and which."""
    limits: LimitsSection = LimitsSection()
    """When to stop at the latest."""
    provider: Provider = LocalSection()
    """Who sells the machines."""
    store: str | None = None
    """Where everything is kept: a folder, or s3://bucket/prefix; null: $STARLING_STORE, else the bucket that `starling
    aws setup` made if the nodes are on AWS, else $STARLING_HOME/store."""
    rehearsal: dict[Annotated[str, Field(pattern=r"^[a-z_]+(\.\w+)*$")], Any] = Field(default_factory=dict)
    """What `starling rehearse` changes, as -o does: key (training.epochs) -> value. Nothing else looks at it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Spec:
        if self.command is not None:
            found = self._command_problems(self.command)
        else:
            found = [*self._training_needs(), *self._rank_limit(), *self._fixed_world()]
        found += [*self._need_problems(), *self._market_problems(), *self._host_problems()]
        if found:
            raise Problems(found)
        return self

    def _command_problems(self, command: CommandSection) -> list[tuple[str, str]]:
        found = [
            (key, "has no effect with command, whose script does all of this by itself; drop it")
            for key in ("task", "model", "data", "training")
            if getattr(self, key) is not None
        ]
        if self.checkpoint != CheckpointSection():
            found.append(("checkpoint", "has no effect with command; use command.every and command.keep"))
        if self.code is None and (command.script or command.run[0] == "-m"):
            found.append(("code", f"name the folder that {' '.join(command.run[:2])} is in, relative to the spec file"))
        return found

    def _training_needs(self) -> list[tuple[str, str]]:
        found = []
        if self.task is None:
            found.append(
                ("task", "is required: classification, grading, or module:Class of your own (or give command)")
            )
        if self.training is None:
            found.append(("training", "is required: training: {epochs: ..., global_batch: ..., optimizer: ...}"))
        return found or self._task_needs()

    def _task_needs(self) -> list[tuple[str, str]]:
        assert self.task is not None
        if not self.task.built_in:
            return [] if self.code else [("code", f"task {self.task.name} is your own: name the folder it is in")]
        found = []
        if self.data is None:
            found.append(("data", f"task {self.task.name} needs a dataset: data: {{dataset: NAME}}"))
        if self.task.name in FUSION_MODELS:
            model = self.model.name if self.model is not None else None
            return [*found, *fusion_problems(self.task.name, self.task.options, model, self.needs)]
        if self.model is None:
            own = " or ".join(OWN_MODELS)
            found.append(("model", f"task {self.task.name} needs a model: {own}, or torchvision/<model>"))
        elif self.model.name not in OWN_MODELS and not re.fullmatch(r"torchvision/\w+", self.model.name):
            other = "torchvision/" + re.sub(r"\W", "_", self.model.name.rpartition("/")[2])
            choice = ", ".join(OWN_MODELS)
            found.append(("model", f"{self.model.name!r} is no known model; use {choice} or {other}"))
        elif problem := _weights_problem(self.model.name, self.model.weights):
            found.append(("model.weights", problem))
        return found

    def _need_problems(self) -> list[tuple[str, str]]:
        weights = self.model.weights if self.model is not None else None
        if weights is None or not weights.startswith("needs:"):
            return []
        name = weights.removeprefix("needs:")
        there = f"there are: {', '.join(self.needs)}" if self.needs else f"add needs: {{{name}: SPEC.yaml}}"
        return [] if name in self.needs else [("model.weights", f"{weights}: no need is called {name!r}; {there}")]

    def _rank_limit(self) -> list[tuple[str, str]]:
        if self.training is None:
            return []
        ranks, shards = self.nodes.max * self.nodes.ranks, self.training.virtual_shards
        in_parts = self.training.strategy == "fsdp"
        if not (self.training.exact or in_parts) or ranks <= shards:
            return []
        kind = "a run with strategy fsdp" if in_parts else "an exact run"
        fits = shards // self.nodes.ranks
        advice = f"use at most {fits}, or more virtual_shards" if fits else "use more virtual_shards"
        return [
            (
                "nodes.max",
                f"{self.nodes.max} nodes x {self.nodes.ranks} ranks = {ranks} ranks, "
                f"but {kind} has work for {shards} (training.virtual_shards); {advice}",
            )
        ]

    def _fixed_world(self) -> list[tuple[str, str]]:
        training, least, most = self.training, self.nodes.min, self.nodes.max
        if training is None or not training.keeps_world or least == most:
            return []
        text = (
            f"{least} to {most} nodes: with strategy fsdp the bits depend on how many there are, and the run is exact"
        )
        return [("nodes.min", f"{text}; use {most} (nodes.max), or training.exact: false")]

    def _market_problems(self) -> list[tuple[str, str]]:
        found = []
        if self.nodes.on_demand_for_deadline and self.limits.deadline is None:
            found.append(
                ("nodes.on_demand_for_deadline", "has no effect without limits.deadline; give one, or drop it")
            )
        if self.nodes.on_demand_for_deadline and self.command is not None:
            text = "has no effect with command, whose steps nobody knows; use nodes.on_demand_after"
            found.append(("nodes.on_demand_for_deadline", text))
        if isinstance(self.provider, SshSection):
            found += [
                (f"nodes.{key}", "has no effect with provider ssh: hosts that you own have no market; drop it")
                for key in ("on_demand_after", "on_demand_for_deadline")
                if getattr(self.nodes, key)
            ]
        return found

    def _host_problems(self) -> list[tuple[str, str]]:
        if not isinstance(self.provider, SshSection):
            return []
        gpus, hosts = self.nodes.gpus_per_node, self.provider.hosts
        fitting = sum(host.gpus >= gpus for host in hosts)
        if not fitting:
            most = max(host.gpus for host in hosts)
            return [("nodes.gpus_per_node", f"{gpus} are more than any of provider.hosts has; use at most {most}")]
        if self.nodes.max <= fitting:
            return []
        able = f"hosts with {gpus} GPUs" if gpus else "hosts"
        return [("nodes.max", f"{self.nodes.max} is more than the {fitting} {able} in provider.hosts; use {fitting}")]

    def resolved(self) -> dict[str, Any]:
        """Every default filled in, durations in seconds: plain data for YAML or JSON, and a valid spec again. What is
        for rehearsals is left out: no run depends on it."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude={"rehearsal"})
        plain["nodes"]["ranks_per_node"] = self.nodes.ranks
        return plain


def _weights_problem(model: str, weights: str | None) -> str | None:
    """Why a built-in model cannot start from these; what is known without looking."""
    if weights == "imagenet":
        has_some = model == "efficientnet-lite0" or model.startswith("torchvision/")
        return None if has_some else f"{model} has no ImageNet weights; use efficientnet-lite0, or drop it"
    if weights is None or weights.startswith("needs:") or weights.partition("?")[0].endswith(".safetensors"):
        return None
    return (
        f"{weights!r} is neither imagenet, nor needs:NAME, nor a .safetensors file. Other files can hold programs, so "
        "they are not read; docs/tasks.md has the line that converts one"
    )


def schema() -> dict[str, Any]:
    """JSON Schema of a spec file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Spec.model_json_schema(mode="validation"),
        "title": "Starling spec",
        "oneOf": [{"required": ["task", "training"]}, {"required": ["command"]}],
    }
