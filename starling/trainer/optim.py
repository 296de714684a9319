"""Optimizers and learning-rate schedules named in a spec."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch

from starling.trainer.config import Optimizer, Schedule
from starling.trainer.phases import Rates, grouped


def build_optimizer(model: torch.nn.Module, config: Optimizer, rates: list[Rates]) -> torch.optim.Optimizer:
    """The optimizer over all parameters that require gradients; those that learn alike in all phases are a group."""
    parameters = [{"params": group} for group in grouped(model, rates)]
    decay = config.weight_decay
    # foreach and fused kernels group tensors by device and shape; the plain loop has one order for every machine.
    if config.name == "sgd":
        return torch.optim.SGD(parameters, config.lr, momentum=config.momentum, weight_decay=decay, foreach=False)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, config.lr, betas=config.betas, eps=config.eps, weight_decay=decay, foreach=False)


def learning_rate(config: Schedule, base: float, *, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """The learning rate of a step (0-based): a pure function, so a schedule needs no state of its own."""
    if step < config.warmup_steps:
        return base * (step + 1) / config.warmup_steps
    if config.name == "cosine":
        done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
        return base * (config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * done)) / 2)
    if config.name == "step":
        return base * config.step_factor ** bisect_right(config.step_epochs, step // steps_per_epoch)
    return base
