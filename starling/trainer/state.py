"""The whole state of training as named tensors and a little JSON, and its fingerprints (SHA-256)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from starling.trainer.step import Stepper

WEIGHTS = "model."
OPTIMIZER = "optimizer."


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Everything needed to go on from `step` as if nothing had happened. Tensors are on the CPU."""

    step: int
    """Steps completed; also the one integer of data position: order and randomness are functions of it."""
    tensors: dict[str, torch.Tensor]
    """`model.<name>` parameters and buffers, `optimizer.<parameter>.<key>` optimizer state."""
    scaler: dict[str, Any]
    """Loss scaling state; empty unless fp16."""
    schedule: dict[str, Any]
    """What the learning rate of the next step is computed from."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics of every finished epoch."""
    inexact_since: int | None = None
    """The step from which the run is no longer exact, if the user chose to go on on another kind of device."""

    def weights_sha256(self) -> str:
        """Over names, shapes, dtypes and bytes of parameters and buffers, in name order."""
        return str(_digest(self.tensors, prefix=WEIGHTS).hexdigest())

    def state_sha256(self) -> str:
        """The same over everything, plus optimizer, schedule, scaler and step."""
        digest = _digest(self.tensors, prefix="")
        digest.update(json.dumps([self.scaler, self.schedule, self.step], sort_keys=True).encode())
        return str(digest.hexdigest())

    def meta(self) -> dict[str, Any]:
        """The JSON part."""
        return {
            "step": self.step,
            "scaler": self.scaler,
            "schedule": self.schedule,
            "history": self.history,
            "inexact_since": self.inexact_since,
        }


def capture(stepper: Stepper, step: int, schedule: dict[str, Any], history: list[dict[str, Any]]) -> TrainingState:
    """Copy the state off the device; the copy does not change when training goes on."""
    tensors = {WEIGHTS + name: _copy(tensor) for name, tensor in stepper.model.state_dict().items()}
    for name, parameter in stepper.model.named_parameters():
        for key, value in sorted(stepper.optimizer.state.get(parameter, {}).items()):
            if value is not None:
                tensors[f"{OPTIMIZER}{name}.{key}"] = _copy(torch.as_tensor(value))
    if stepper.device.type == "cuda":
        torch.cuda.synchronize(stepper.device)
    scaler = dict(stepper.scaler.state_dict())
    return TrainingState(step=step, tensors=tensors, scaler=scaler, schedule=schedule, history=list(history))


def restore(state: TrainingState, stepper: Stepper) -> None:
    """Put a captured state into a freshly built model, optimizer and scaler."""
    weights = {n.removeprefix(WEIGHTS): t for n, t in state.tensors.items() if n.startswith(WEIGHTS)}
    stepper.model.load_state_dict(weights)
    stepper.optimizer.load_state_dict(_optimizer_state(state, stepper))
    if state.scaler:
        stepper.scaler.load_state_dict(state.scaler)


def _optimizer_state(state: TrainingState, stepper: Stepper) -> dict[str, Any]:
    trained = [name for name, parameter in stepper.model.named_parameters() if parameter.requires_grad]
    per_parameter: dict[int, dict[str, torch.Tensor]] = {}
    for index, name in enumerate(trained):
        prefix = f"{OPTIMIZER}{name}."
        found = {n.removeprefix(prefix): t for n, t in state.tensors.items() if n.startswith(prefix)}
        # A longer parameter name may share the prefix; state keys hold no dot.
        found = {key: tensor for key, tensor in found.items() if "." not in key}
        if found:
            per_parameter[index] = found
    return {"state": per_parameter, "param_groups": stepper.optimizer.state_dict()["param_groups"]}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor.detach().clone(memory_format=torch.contiguous_format)
    target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return target.copy_(tensor.detach(), non_blocking=True)


def _digest(tensors: dict[str, torch.Tensor], prefix: str) -> Any:
    digest = hashlib.sha256()
    for name, tensor in _in_order(tensors, prefix):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest


def _in_order(tensors: dict[str, torch.Tensor], prefix: str) -> Iterable[tuple[str, torch.Tensor]]:
    return sorted((name, tensor) for name, tensor in tensors.items() if name.startswith(prefix))
