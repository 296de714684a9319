from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from starling.infra.errors import UsageError
from starling.infra.store import Store, open_store
from starling.trainer.data.prepare import prepare
from starling.trainer.task import Classifies, Grades, Splits, TaskContext
from starling.trainer.tasks.grades import group
from starling.trainer.tasks.grading import GradingTask
from starling.trainer.tasks.loading import load_task

GRADES = ["0", "1", "2", "3", "4"]
COUNTS = (12, 4, 3, 2, 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """With dataset `eyes`: five grades, each image as bright as its grade."""
    folder = tmp_path_factory.mktemp("eyes")
    for split in ("train", "val", "test"):
        for grade, count in enumerate(COUNTS if split == "train" else (1,) * 5):
            place = folder / "images" / split / str(grade)
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((6, 6, 3), 50 * grade + number, dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    (folder / "store").mkdir()
    store = open_store(str(folder / "store"))
    prepare(str(folder / "images"), store, "eyes")
    return store


def grading(store: Store, tmp_path: Path, options: dict[str, Any] | None = None, **changes: Any) -> GradingTask:
    settings: dict[str, Any] = {"model_name": "small-cnn", "model_options": {}, "dataset": "eyes", "seed": 0}
    context = TaskContext(options=options or {}, store=store, cache_dir=tmp_path / "cache", **(settings | changes))
    task = load_task("grading", context)
    assert isinstance(task, GradingTask)
    return task


def epoch_of(task: GradingTask, epoch: int) -> list[int]:
    """The samples of an epoch, with repeats."""
    samples: Any = task.train_samples()
    return [entry % len(samples) for entry in samples.order(0, epoch).tolist()]


@pytest.mark.parametrize(
    ("options", "class_of", "names", "positive_from"),
    [
        ({}, [0, 1, 2, 3, 4], GRADES, 2),
        ({"classes": 5}, [0, 1, 2, 3, 4], GRADES, 2),
        ({"classes": 3}, [0, 1, 1, 2, 2], ["0", "1+2", "3+4"], 2),
        ({"classes": 2}, [0, 0, 1, 1, 1], ["0+1", "2-4"], 1),
        ({"groups": [[0], [1, 2, 3, 4]]}, [0, 1, 1, 1, 1], ["0", "1-4"], 1),
        ({"groups": [[0, 2], [1, 3, 4]], "positive_from": 1}, [0, 1, 0, 1, 1], ["0+2", "1+3+4"], 1),
        ({"positive_from": 4}, [0, 1, 2, 3, 4], GRADES, 4),
    ],
)
def test_grades_are_grouped(options: dict[str, Any], class_of: list[int], names: list[str], positive_from: int) -> None:
    found = group(GRADES, **options)
    assert [found.class_of[label] for label in range(5)] == class_of
    assert found.positive_from == positive_from
    assert found.names == names


def test_grades_are_the_numbers_that_classes_are_called_by() -> None:
    assert group(["0", "1", "2", "4"], classes=2).class_of == {0: 0, 1: 0, 2: 1, 3: 1}
    assert group(["none", "mild", "bad"], groups=[[0], [1, 2]]).names == ["none", "mild+bad"]
    assert group(["none", "mild"]).positive_from == 1


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (GRADES, {"groups": [[0], [1, 2], [2, 3, 4]]}, "groups: grade 2 is in two groups"),
        (GRADES, {"groups": [[0], [1, 2]]}, "groups: grade 3 is in no group; the dataset's grades are 0, 1, 2, 3, 4"),
        (GRADES, {"groups": [[0, 1, 2, 3, 4]]}, "groups: needs at least two groups"),
        (GRADES, {"classes": 2, "positive_from": 2}, "positive_from: 2 is no class of 0 to 1"),
        (["a", "b"], {"classes": 3}, "classes: the dataset has only 2 classes"),
        ([str(n) for n in range(8)], {"classes": 3}, "made of five grades, 0 to 4, but the dataset's go up to 7"),
        (["a"], {}, "needs two grades or more"),
    ],
)
def test_groups_that_cannot_be_are_refused(names: list[str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        group(names, **options)


def test_labels_are_those_of_the_groups(store: Store, tmp_path: Path) -> None:
    task = grading(store, tmp_path, {"classes": 3})
    samples: Any = task.train_samples()
    batch = samples.batch(range(len(samples)), seed=0, epoch=0)
    grades = (batch["image"][:, 0, 0, 0] // 50).long()
    assert batch["label"].tolist() == [[0, 1, 1, 2, 2][grade] for grade in grades.tolist()]
    assert task.build_model()(torch.rand(2, 3, 6, 6)).shape == (2, 3)


def test_resampling_evens_out_the_classes_of_an_epoch(store: Store, tmp_path: Path) -> None:
    task = grading(store, tmp_path, {"classes": 2, "resample": 1.0})
    labels: Any = task.train_samples()
    taken = epoch_of(task, 0)
    assert len(taken) == sum(COUNTS)
    by_class = torch.bincount(labels.batch(taken, seed=0, epoch=None)["label"])
    assert by_class.tolist() == [11, 11]
    assert sorted(epoch_of(task, 0)) != sorted(epoch_of(task, 1))
    assert sorted(epoch_of(grading(store, tmp_path), 0)) == list(range(sum(COUNTS)))


def test_a_share_of_the_data_has_every_grade(store: Store, tmp_path: Path) -> None:
    task = grading(store, tmp_path, {"loss": "weighted", "resample": 0.5}, data_fraction=0.1)
    samples = task.train_samples()
    assert len(samples) == 5
    assert sorted(samples.batch(range(5), seed=0, epoch=None)["label"].tolist()) == [0, 1, 2, 3, 4]
    validation = task.val_samples()
    assert validation is not None
    assert len(validation) == 5


def test_weights_of_the_loss_follow_the_training_data(store: Store, tmp_path: Path) -> None:
    task = grading(store, tmp_path, {"loss": "weighted"})
    plain = grading(store, tmp_path)
    model, samples = task.build_model().eval(), task.train_samples()
    batch = samples.batch(range(22), seed=0, epoch=None)
    weighted, unweighted = task.score(model, batch), plain.score(model, batch)
    torch.testing.assert_close(weighted.losses / unweighted.losses, 22 / 5 / torch.tensor(COUNTS)[batch["label"]])
    assert (task.loss_name, plain.loss_name) == ("loss", "cross_entropy")
    torch.testing.assert_close(weighted.scores["cross_entropy"], unweighted.losses)


def test_outputs_are_made_for_evaluation_only(store: Store, tmp_path: Path) -> None:
    task = grading(store, tmp_path, {"metrics": ["kappa", "auc"]})
    model = task.build_model()
    batch = task.train_samples().batch(range(22), seed=0, epoch=None)
    assert task.score(model.train(), batch).outputs == {}
    outputs = task.score(model.eval(), batch).outputs
    assert outputs["probabilities"].shape == (22, 5)
    assert set(task.summarise(outputs)) == {"kappa", "auc"}
    perfect = {"probabilities": torch.eye(5)[outputs["labels"]], "labels": outputs["labels"]}
    assert task.summarise(perfect) == {"kappa": 1.0, "auc": 1.0}


def test_it_can_be_asked_about_files_and_other_splits(store: Store, tmp_path: Path) -> None:
    task = grading(store, tmp_path, {"image_size": 8, "augment": {"rotate": 90}})
    assert isinstance(task, Grades)
    assert isinstance(task, Classifies)
    assert isinstance(task, Splits)
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(tmp_path / "one.png")
    batch = task.image_batch([(tmp_path / "one.png").read_bytes()])
    probabilities = task.probabilities(task.build_model().eval(), batch)
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1])
    assert len(task.split_samples("test")) == 5
    with pytest.raises(UsageError, match="no split 'tset'"):
        task.split_samples("tset")


@pytest.mark.parametrize("given", [{"mean": "imagenet"}, {"mean": "imagenet", "std": "imagenet"}])
def test_imagenets_pixels_have_a_name(store: Store, tmp_path: Path, given: dict[str, Any]) -> None:
    named = grading(store, tmp_path, given)
    spelt = grading(store, tmp_path, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]})
    model = named.build_model().eval()
    batch = named.train_samples().batch([0], seed=0, epoch=None)
    assert torch.equal(named.probabilities(model, batch), spelt.probabilities(model, batch))


def test_parts_are_the_head_and_the_rest(store: Store, tmp_path: Path) -> None:
    task = grading(store, tmp_path)
    assert task.parts(task.build_model()) == {"head": ["classifier"], "backbone": [""]}
