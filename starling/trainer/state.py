"""The whole state of training as named tensors and a little JSON, and its fingerprints (SHA-256)."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from starling.trainer.memory import bytes_of

WEIGHTS = "model."
BUFFERS = "buffer."
OPTIMIZER = "optimizer."


@dataclass(frozen=True, kw_only=True, slots=True)
class Hashes:
    """Fingerprints over one line for each tensor, in name order: name, shape, type, and the SHA-256 of its bytes."""

    weights_sha256: str
    """Over the lines of parameters and buffers, as far as they are part of the model's `state_dict`."""
    state_sha256: str
    """Over all lines, then scaler, schedule and step."""


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Everything needed to go on from `step` as if nothing had happened."""

    step: int
    """Steps completed; also the one integer of data position: order and randomness are functions of it."""
    tensors: dict[str, torch.Tensor]
    """`model.<name>` parameters and buffers, `buffer.<name>` buffers that are no part of the model's `state_dict`
    (`persistent=False`), `optimizer.<parameter>.<key>` optimizer state."""
    scaler: dict[str, Any]
    """Loss scaling state; empty unless fp16."""
    schedule: dict[str, Any]
    """What the learning rate of the next step is computed from."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics of every finished epoch."""
    inexact_since: int | None = None
    """The step from which the run is no longer exact, if the user chose to go on on another kind of device."""
    summed_over: int | None = None
    """The world size that the bits depend on (strategy fsdp); None: they depend on none."""

    def hashes(self, threads: int = 1) -> Hashes:
        """Both fingerprints of the state, in one pass over the tensors."""
        names = sorted(self.tensors)
        with ThreadPoolExecutor(threads) as pool:
            lines = dict(zip(names, pool.map(lambda name: _line(name, self.tensors[name]), names), strict=True))
        weights = "".join(line for name, line in lines.items() if name.startswith(WEIGHTS))
        rest = json.dumps([self.scaler, self.schedule, self.step], sort_keys=True)
        return Hashes(
            weights_sha256=hashlib.sha256(weights.encode()).hexdigest(),
            state_sha256=hashlib.sha256(("".join(lines.values()) + rest).encode()).hexdigest(),
        )

    def weights_sha256(self) -> str:
        """See Hashes."""
        return self.hashes().weights_sha256

    def state_sha256(self) -> str:
        """See Hashes."""
        return self.hashes().state_sha256

    def meta(self) -> dict[str, Any]:
        """The JSON part."""
        return {
            "step": self.step,
            "scaler": self.scaler,
            "schedule": self.schedule,
            "history": self.history,
            "inexact_since": self.inexact_since,
            "summed_over": self.summed_over,
        }


def weights_sha256(tensors: dict[str, torch.Tensor], threads: int = 1) -> str:
    """See Hashes; of weights alone, named as in a state."""
    return TrainingState(step=0, tensors=tensors, scaler={}, schedule={}).hashes(threads).weights_sha256


def capture(
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> TrainingState:
    """The state after `step` steps. Its tensors are the model's and optimizer's own: nothing is copied yet."""
    tensors = {WEIGHTS + name: tensor.detach() for name, tensor in model.state_dict().items()}
    for name, buffer in model.named_buffers():
        if WEIGHTS + name not in tensors:
            tensors[BUFFERS + name] = _as_real(buffer.detach())
    for name, parameter in model.named_parameters():
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            if value is not None:
                tensors[f"{OPTIMIZER}{name}.{key}"] = torch.as_tensor(value)
    return TrainingState(step=step, tensors=tensors, scaler=dict(scaler.state_dict()) if scaler else {}, schedule={})


def restore(
    state: TrainingState,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Put a captured state into a freshly built model, optimizer and scaler."""
    restore_model(state, model)
    optimizer.load_state_dict(_optimizer_state(state, model, optimizer))
    if scaler is not None and state.scaler:
        scaler.load_state_dict(state.scaler)


def restore_model(state: TrainingState, model: torch.nn.Module) -> None:
    """Put captured parameters and buffers into a freshly built model. Raises RuntimeError if they do not fit."""
    weights = {n.removeprefix(WEIGHTS): t for n, t in state.tensors.items() if n.startswith(WEIGHTS)}
    model.load_state_dict(weights)
    for name, buffer in model.named_buffers():
        if (saved := state.tensors.get(BUFFERS + name)) is not None:
            _as_real(buffer.detach()).copy_(saved)


def _optimizer_state(state: TrainingState, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    in_order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index_of = {id(parameter): index for index, parameter in enumerate(in_order)}
    per_parameter: dict[int, dict[str, torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        prefix = f"{OPTIMIZER}{name}."
        found = {n.removeprefix(prefix): t for n, t in state.tensors.items() if n.startswith(prefix)}
        # A longer parameter name may share the prefix; state keys hold no dot.
        found = {key: tensor for key, tensor in found.items() if "." not in key}
        if found and id(parameter) in index_of:
            if parameter.device.type == "cpu":  # load_state_dict would keep these, and with them all of the file
                found = {key: tensor.clone() for key, tensor in found.items()}
            per_parameter[index_of[id(parameter)]] = found
    return {"state": per_parameter, "param_groups": optimizer.state_dict()["param_groups"]}


def _as_real(tensor: torch.Tensor) -> torch.Tensor:
    """A view that a checkpoint has a word for: it has none for complex numbers, such as those of rotary embeddings."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _line(name: str, tensor: torch.Tensor) -> str:
    return f"{name} {tuple(tensor.shape)} {tensor.dtype} {hashlib.sha256(bytes_of(tensor)).hexdigest()}\n"
