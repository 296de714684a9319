from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from starling.infra.errors import UsageError
from starling.infra.store import Store, open_store
from starling.trainer.data.prepare import prepare
from starling.trainer.task import TaskContext
from starling.trainer.tasks.classification import ClassificationTask
from starling.trainer.tasks.losses import cross_entropy


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def pets(store: Store, tmp_path: Path) -> str:
    """Two classes with one training image each, and a split named test: white cats and black dogs."""
    for split in ("train", "test"):
        for class_name, value in (("cat", 255), ("dog", 0)):
            folder = tmp_path / "images" / split / class_name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)).save(folder / "1.png")
    prepare(str(tmp_path / "images"), store, "pets")
    return "pets"


def context(store: Store, tmp_path: Path, options: dict[str, Any] | None = None, **changes: Any) -> TaskContext:
    settings: dict[str, Any] = {"model_name": "small-cnn", "model_options": {}, "dataset": "pets", "seed": 0}
    return TaskContext(options=options or {}, store=store, cache_dir=tmp_path / "cache", **(settings | changes))


def test_losses_and_their_gradients_are_those_of_cross_entropy() -> None:
    logits = (torch.randn(50, 10, generator=torch.Generator().manual_seed(0)) * 20).requires_grad_()
    labels = torch.arange(50) % 10
    ours = cross_entropy(logits, labels)
    theirs = functional.cross_entropy(logits, labels, reduction="none")
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad(losses.sum(), logits)[0] for losses in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_cross_entropy_survives_impossible_classes() -> None:
    logits = torch.tensor([[0.0, float("-inf")]], requires_grad=True)
    cross_entropy(logits, torch.tensor([0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("given", "built_for"), [({"image_size": 32}, {}), ({}, {"image_size": 16})])
def test_a_model_of_one_size_refuses_images_of_another(
    store: Store, pets: str, tmp_path: Path, given: dict[str, int], built_for: dict[str, int]
) -> None:
    task = ClassificationTask(
        context(store, tmp_path, given, model_name="torchvision/vit_b_16", model_options=built_for)
    )
    with torch.device("meta"), pytest.raises(UsageError, match=r"task.options.image_size: .*vit_b_16 takes .*; give"):
        task.build_model()


class Brightness(torch.nn.Module):
    """Logits that are the sum of the normalised pixels, and zero."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = images.sum(dim=(1, 2, 3))
        return torch.stack([total, torch.zeros_like(total)], dim=1)


def test_scores_are_per_sample(store: Store, pets: str, tmp_path: Path) -> None:
    task = ClassificationTask(context(store, tmp_path))
    batch = task.train_samples().batch([0, 1, 1], seed=0, epoch=0)
    right = task.score(Brightness(), batch)
    wrong = task.score(Brightness(), batch | {"label": 1 - batch["label"]})
    assert right.scores["accuracy"].tolist() == [1, 1, 1]
    assert wrong.scores["accuracy"].tolist() == [0, 0, 0]
    assert right.losses.shape == (3,)
    assert (wrong.losses > right.losses).all()


class Spy(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return torch.zeros(len(images), 2)


@pytest.mark.parametrize(
    ("options", "white", "black"),
    [
        ({}, [1, 1, 1], [-1, -1, -1]),
        ({"mean": [0.0], "std": [1.0]}, [1, 1, 1], [0, 0, 0]),
        ({"mean": [0.0, 0.5, 1.0], "std": [1.0, 0.5, 0.25]}, [1, 1, 0], [0, -1, -4]),
    ],
)
def test_pixels_are_normalised(
    store: Store, pets: str, tmp_path: Path, options: dict[str, Any], white: list[float], black: list[float]
) -> None:
    task, spy = ClassificationTask(context(store, tmp_path, options)), Spy()
    task.score(spy, task.train_samples().batch([0, 1], seed=0, epoch=None))
    assert spy.seen[:, :, 0, 0].tolist() == [white, black]


def test_a_dataset_without_val_is_evaluated_on_test(store: Store, pets: str, tmp_path: Path) -> None:
    samples = ClassificationTask(context(store, tmp_path)).val_samples()
    assert samples is not None
    assert len(samples) == 2


def test_a_dataset_without_either_is_not_evaluated(store: Store, tmp_path: Path, pets: str) -> None:
    for class_name in ("cat", "dog"):
        (tmp_path / "images" / "test" / class_name / "1.png").unlink()
        (tmp_path / "images" / "test" / class_name).rmdir()
    (tmp_path / "images" / "test").rmdir()
    prepare(str(tmp_path / "images"), store, "train-only")
    assert ClassificationTask(context(store, tmp_path, dataset="train-only")).val_samples() is None


def test_options_scale_and_augment(store: Store, pets: str, tmp_path: Path) -> None:
    task = ClassificationTask(context(store, tmp_path, {"image_size": [6, 8], "augment": {"shift": 5}}))
    samples, spy, seen = task.train_samples(), Spy(), []
    for epoch in (None, 0, 1, 2):
        task.score(spy, samples.batch([0, 1], seed=0, epoch=epoch))
        seen.append(spy.seen)
    assert {images.shape for images in seen} == {(2, 3, 6, 8)}
    white = [images[images.mean(dim=(1, 2, 3)).argmax()] for images in seen]
    assert white[0].min() == 1
    assert len({image.numpy().tobytes() for image in white}) > 2


def test_the_model_fits_the_dataset(store: Store, pets: str, tmp_path: Path) -> None:
    task = ClassificationTask(context(store, tmp_path))
    scored = task.score(task.build_model(), task.train_samples().batch([0, 1], seed=0, epoch=0))
    assert scored.losses.shape == (2,)
    assert task.loss_name == "cross_entropy"


@pytest.mark.parametrize(
    ("options", "changes", "complaint"),
    [
        ({"imagesize": 8}, {}, "task.options.imagesize: there is no such option; there are image_size, augment"),
        ({"augment": {"turn": 1}}, {}, "task.options.augment.turn: there is no such option"),
        ({"augment": {"rotate": 200}}, {}, "task.options.augment.rotate: .*less than or equal to 180; it is 200"),
        ({"augment": {"zoom": [1.1, 0.9]}}, {}, r"task.options.augment: .*zoom goes from .* so \[0.9, 1.1\]"),
        ({"loss": "focus"}, {}, "task.options.loss.name: .*'cross_entropy', 'weighted' or 'focal'; it is 'focus'"),
        ({"loss": {"gamma": 1}}, {}, "task.options.loss: .*gamma has no effect with cross_entropy"),
        ({"loss": {"name": "weighted", "weights": [1.0]}}, {}, "task.options.loss.weights: 1 numbers for 2 classes"),
        ({"resample": 1.5}, {}, "task.options.resample: .*less than or equal to 1; it is 1.5"),
        ({"metrics": ["auk"]}, {}, "task.options.metrics: there is no metric 'auk'; there are accuracy, cross_entropy"),
        ({"groups": [[0], [1]]}, {}, "task.options.groups: there is no such option"),
        ({"augment": {"shift": -1}}, {}, "task.options.augment.shift: .*greater than or equal to 0; it is -1"),
        ({"std": [0.0]}, {}, "task.options.std.0: .*greater than 0"),
        ({"mean": [0.0, 1.0, 2.0]}, {}, "mean and std must be of one length"),
        ({"mean": [0.0, 1.0], "std": [1.0, 1.0]}, {}, "task.options.mean: 2 numbers for images of 3 channels"),
        ({}, {"model_name": None}, "model: task classification needs one, for example model: small-cnn"),
        ({}, {"dataset": None}, "data.dataset: task classification needs one, for example dataset: digits"),
        ({}, {"dataset": "birds"}, "no dataset called birds .*starling data prepare FOLDER_OF_IMAGES birds"),
    ],
)
def test_a_wrong_spec_is_explained(
    store: Store, pets: str, tmp_path: Path, options: dict[str, Any], changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        ClassificationTask(context(store, tmp_path, options, **changes))
