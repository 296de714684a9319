from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import pytest
import torch
from torch import nn

from starling.infra.errors import UsageError
from starling.trainer.comm import Comm
from starling.trainer.config import Optimizer, Phase, Schedule, Training
from starling.trainer.evaluate import evaluate
from starling.trainer.models.build import build
from starling.trainer.models.head import head_path
from starling.trainer.phases import grouped, phase_at, rates_of
from starling.trainer.step import ExactStepper, PlainStepper, Stepper
from starling.trainer.task import Batch, Samples, Scored, Task

HEAD_FIRST = (Phase(epochs=2, rates={"head": 1.0}), Phase(epochs=None, rates={"head": 1.0, "backbone": 0.1}))


class Regression(Task):
    """Learns to answer 1 from noise, with the small CNN."""

    def __init__(self) -> None:
        """Needs no context."""

    def build_model(self) -> nn.Module:
        return build("small-cnn", {"channels": [4, 6], "dropout": 0.0}, num_classes=1, in_channels=1)

    def parts(self, model: nn.Module) -> dict[str, list[str]]:
        return {"head": [head_path(model)], "backbone": [""]}

    def train_samples(self) -> Samples:
        raise NotImplementedError

    def val_samples(self) -> None:
        return None

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        return Scored(losses=(model(batch["image"])[:, 0] - 1) ** 2)


class Noise:
    """Samples to evaluate."""

    def __len__(self) -> int:
        return 8

    def batch(self, indices: Sequence[int], *, seed: int, epoch: int | None) -> Batch:
        return {"image": shard_batch(0, 0)[0]["image"][[index % 4 for index in indices]]}


def stepper(
    phases: tuple[Phase, ...], kind: type[Stepper] = ExactStepper, task: Task | None = None, **optimizer: Any
) -> Stepper:
    settings: dict[str, Any] = {
        "name": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        **optimizer,
    }
    training = Training(
        epochs=4,
        global_batch=8,
        virtual_shards=2,
        seed=0,
        optimizer=Optimizer(**settings),
        schedule=Schedule(name="constant", warmup_steps=0, final_factor=0, step_epochs=(), step_factor=0.1),
        precision="fp32",
        exact=kind is ExactStepper,
        clip_norm=None,
        on_mismatch="refuse",
        threads_per_rank=1,
        device="cpu",
        phases=phases,
    )
    task, device = task or Regression(), torch.device("cpu")
    torch.manual_seed(0)
    return kind(task, task.build_model(), training, Comm(0, 1, device, "none"), device)


def shard_batch(step: int, shard: int) -> tuple[Batch, torch.Tensor]:
    generator = torch.Generator().manual_seed(10 * step + shard)
    return {"image": torch.randn(4, 1, 8, 8, generator=generator)}, torch.ones(4)


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(("epoch", "number"), [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2), (99, 2)])
def test_the_phase_follows_from_the_epoch(epoch: int, number: int) -> None:
    phases = [Phase(epochs=2, rates={}), Phase(epochs=3, rates={}), Phase(epochs=None, rates={})]
    assert phase_at(phases, epoch) == number
    closed = [Phase(epochs=2, rates={}), Phase(epochs=3, rates={}), Phase(epochs=1, rates={})]
    assert phase_at(closed, epoch) == number


@pytest.mark.parametrize("kind", [ExactStepper, PlainStepper])
def test_what_is_frozen_does_not_change_at_all(kind: type[Stepper]) -> None:
    trained = stepper(HEAD_FIRST, kind)
    before = tensors(trained.model)
    for step in range(3):
        trained.enter_phase(0)
        trained.run(step, 0.1, 8, shard_batch)
    frozen = tensors(trained.model)
    assert changed(before, frozen) == {"classifier.weight", "classifier.bias"}
    assert {name for name, parameter in trained.model.named_parameters() if parameter in trained.optimizer.state} == {
        "classifier.weight",
        "classifier.bias",
    }
    trained.enter_phase(1)
    trained.run(3, 0.1, 8, shard_batch)
    assert changed(frozen, tensors(trained.model)) == set(before)


def test_frozen_statistics_survive_an_evaluation() -> None:
    trained = stepper(HEAD_FIRST)
    trained.enter_phase(0)
    trained.model.eval()
    trained.train_mode()
    modes = {type(module): module.training for module in trained.model.modules()}
    assert modes[nn.BatchNorm2d] is False
    assert modes[nn.Linear] is True
    trained.enter_phase(1)
    trained.train_mode()
    assert all(module.training for module in trained.model.modules())


class Noting(Regression):
    """Builds its model with a function of the test's, and notes the modules that are in evaluation mode while it
    trains."""

    def __init__(self, change: Callable[[nn.Sequential], object]) -> None:
        self._change = change
        self.still: list[set[str]] = []

    def build_model(self) -> nn.Module:
        blocks = [nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in range(2)]
        model = nn.Sequential(nn.Flatten(), *blocks[:1], nn.Linear(4, 64), *blocks[1:])
        self._change(model)
        return model

    def parts(self, model: nn.Module) -> dict[str, list[str]]:
        return {"head": ["3"], "backbone": [""]}

    def score(self, model: nn.Module, batch: Batch) -> Scored:
        if torch.is_grad_enabled():
            self.still.append({path for path, module in model.named_modules() if not module.training})
        return super().score(model, batch)


class _OwnRule(nn.Linear):
    """Never trains, whatever it is told."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


def _hub_model(model: nn.Sequential) -> None:
    model.eval()[2] = nn.Linear(4, 64)


def _all_but_one(model: nn.Sequential) -> None:
    model.get_submodule("1").eval()
    model.get_submodule("1.2").train()


@pytest.mark.parametrize("kind", [ExactStepper, PlainStepper])
@pytest.mark.parametrize(
    ("change", "still"),
    [
        (lambda model: None, set()),
        (lambda model: model[1][1].eval(), {"1.1"}),
        (_all_but_one, {"1", "1.0", "1.1"}),
        (lambda model: model.eval(), set()),
        (_hub_model, set()),
        (lambda model: model.__setitem__(2, _OwnRule(4, 64)), {"2"}),
    ],
)
def test_what_trains_follows_from_how_the_model_was_built(
    kind: type[Stepper], change: Callable[[nn.Sequential], object], still: set[str]
) -> None:
    task = Noting(change)
    trained = stepper((), kind, task)
    trained.run(0, 0.1, 8, shard_batch)
    evaluate(trained, Noise(), Comm(0, 1, torch.device("cpu"), "none"))
    trained.run(1, 0.1, 8, shard_batch)
    passes = 4 if kind is ExactStepper else 2
    assert task.still == [still] * passes


def test_what_was_built_in_evaluation_mode_keeps_it_in_every_phase() -> None:
    task = Noting(lambda model: model[1][2].eval())
    trained = stepper(HEAD_FIRST, task=task)
    for phase in (0, 1):
        trained.enter_phase(phase)
        trained.run(phase, 0.1, 8, shard_batch)
    assert task.still == [{"1.1", "1.2"}, {"1.1", "1.2"}, {"1.2"}, {"1.2"}]


def test_without_phases_everything_learns() -> None:
    trained = stepper(())
    before = tensors(trained.model)
    trained.enter_phase(0)
    trained.run(0, 0.1, 8, shard_batch)
    assert changed(before, tensors(trained.model)) == set(before)
    assert len(trained.optimizer.param_groups) == 1


def test_a_factor_scales_the_update() -> None:
    """Plain SGD: twice the factor, twice the step."""

    def step_of(factor: float) -> torch.Tensor:
        phases = (Phase(epochs=None, rates={"head": 1.0, "backbone": factor}),)
        trained = stepper(phases, momentum=0.0, weight_decay=0.0)
        before = tensors(trained.model)
        trained.enter_phase(0)
        trained.run(0, 0.1, 8, shard_batch)
        return trained.model.state_dict()["blocks.0.0.weight"] - before["blocks.0.0.weight"]

    torch.testing.assert_close(step_of(0.2), 2 * step_of(0.1))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_state_resumes_in_the_middle_of_a_phase(name: str) -> None:
    options = {"name": name, "momentum": 0.9}
    steps = [(step, int(step >= 2)) for step in range(6)]
    whole, first, second = (stepper(HEAD_FIRST, **options) for _ in range(3))
    for trained, part in ((whole, steps), (first, steps[:4])):
        for step, phase in part:
            trained.enter_phase(phase)
            trained.run(step, 0.05, 8, shard_batch)
    second.restore(first.state(4, keep=True))
    for step, phase in steps[4:]:
        second.enter_phase(phase)
        second.run(step, 0.05, 8, shard_batch)
    assert second.state(6, keep=True).state_sha256() == whole.state(6, keep=True).state_sha256()


def test_the_longest_name_counts() -> None:
    model = Regression().build_model()
    parts = Regression().parts(model)
    rates = {"head": 1.0, "backbone": 0.1, "blocks.1": 0.3, "blocks.1.0.weight": 0.0}
    (found,) = rates_of([Phase(epochs=None, rates=rates)], model, parts)
    assert found.factors["classifier.weight"] == 1.0
    assert found.factors["blocks.0.0.weight"] == 0.1
    assert found.factors["blocks.1.0.weight"] == 0.0
    assert found.factors["blocks.1.1.weight"] == 0.3
    assert len(grouped(model, [found])) == 4
    (only,) = rates_of([Phase(epochs=None, rates={"blocks": 1.0, "blocks.1": 0.0})], model, parts)
    assert only.still == {"blocks.1.1"}
    assert not any(factor for name, factor in only.factors.items() if not name.startswith("blocks.0"))


@pytest.mark.parametrize(
    ("rates", "head", "backbone"),
    [
        ({"backbone": 0.1}, 0.0, 0.1),
        ({"head": 1.0}, 1.0, 0.0),
        ({"backbone": 0.1, "head": 0.0}, 0.0, 0.1),
        ({"classifier": 1.0}, 1.0, 0.0),  # the head, called by its module
        ({"backbone": 0.1, "classifier": 1.0}, 1.0, 0.1),
        ({"blocks": 0.1}, 0.0, 0.1),
    ],
)
def test_a_part_that_is_not_named_is_frozen(rates: dict[str, float], head: float, backbone: float) -> None:
    trained = stepper((Phase(epochs=None, rates=rates),))
    before = tensors(trained.model)
    trained.enter_phase(0)
    trained.run(0, 0.1, 8, shard_batch)
    learnt = {name.partition(".")[0] for name in changed(before, tensors(trained.model))}
    assert learnt == {name for name, factor in (("classifier", head), ("blocks", backbone)) if factor}
    model = Regression().build_model()
    (found,) = rates_of([Phase(epochs=None, rates=rates)], model, Regression().parts(model))
    assert {found.factors["classifier.weight"], found.factors["classifier.bias"]} == {head}
    assert found.factors["blocks.0.0.weight"] == backbone


def test_parts_within_parts_are_named_one_by_one_and_a_module_with_all_that_is_in_it() -> None:
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), "top": nn.Linear(1, 1)})
    parts = {"all": [""], "inner": ["body"], "norm": ["body.1"]}

    def factors(**rates: float) -> tuple[float, ...]:
        (found,) = rates_of([Phase(epochs=None, rates=rates)], model, parts)
        assert found.still == (set() if found.factors["body.1.weight"] else {"body.1"})
        return tuple(found.factors[f"{name}.weight"] for name in ("top", "body.0", "body.1"))

    assert factors(all=1.0) == (1.0, 0.0, 0.0)
    assert factors(inner=0.5) == (0.0, 0.5, 0.0)
    assert factors(all=1.0, norm=0.1) == (1.0, 0.0, 0.1)
    assert factors(body=0.5) == (0.0, 0.5, 0.5)
    assert factors(all=1.0, body=0.5, norm=0.1) == (1.0, 0.5, 0.1)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"haed": 1.0}, "phases.0.rates: the model has no part 'haed'; there are head, backbone, blocks, dropout"),
        ({"block": 1.0}, "the model has no part 'block'"),
        ({"": 1.0}, "the model has no part ''"),
        ({"dropout": 1.0}, "nothing of the model would learn"),
    ],
)
def test_a_name_that_means_nothing_is_refused(rates: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        stepper((Phase(epochs=None, rates=rates),))
