"""Tasks that are unusual or wrong in one way each."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import torch
from torch import nn

from starling.trainer.task import Batch, Samples, Scored
from tests.support.tasks import Points, ProbeTask


class StillBatchNorm(ProbeTask):
    """Its BatchNorm was put into evaluation mode when it was built, and its beginning tries to undo that."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        model.get_submodule("1").eval()
        return model

    def initialise(self, model: nn.Module) -> None:
        model.train()


class OtherContent(ProbeTask):
    """Every rank says that its data is another, and not in hexadecimal digits."""

    def data_sha256(self) -> str:
        return f"of rank {os.environ['RANK']}"


class OtherCount(ProbeTask):
    """Every rank has another number of validation samples, and rank 2 none at all."""

    def val_samples(self) -> Samples:
        rank = int(os.environ["RANK"])
        return Points(61 + rank) if rank < 2 else None  # type: ignore[return-value]


class Scratchpad(ProbeTask):
    """Keeps what its losses depend on in buffers that are no part of its state dict, one of them complex."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        model.register_buffer("usual", torch.zeros(1), persistent=False)
        model.register_buffer("turns", torch.ones(2, dtype=torch.complex64), persistent=False)
        return model

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        scored = super().score(model, batch)
        usual, turns = model.get_buffer("usual"), model.get_buffer("turns")
        if model.training:
            usual.mul_(0.9).add_(scored.losses.detach().mean())
            turns.mul_(1j)
        return replace(scored, losses=scored.losses * (1 + usual + turns.real.mean()))


class Counting(ProbeTask):
    """Counts samples of a class in an integer buffer."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        model.register_buffer("seen", torch.zeros(2, dtype=torch.int64))
        return model

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        if model.training:
            model.get_buffer("seen").add_(torch.bincount(batch["y"], minlength=2))
        return super().score(model, batch)


class BrokenBackward(ProbeTask):
    """Its backward pass raises a RuntimeError, as autograd does for the mistakes of users."""

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        losses = super().score(model, batch).losses.exp()
        return Scored(losses=losses.add_(1) if model.training else losses)


class DiesInForward(ProbeTask):
    """Rank 1 is killed in the midst of its sixth forward pass in training, so that the others lose it in theirs, or in
    the backward pass."""

    passes = 0

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        self.passes += model.training
        if self.passes == 6 and os.environ["RANK"] == "1":
            time.sleep(0.3)  # until the others wait in a collective
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(model, batch)
