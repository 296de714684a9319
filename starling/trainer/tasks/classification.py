"""The built-in task: sort images of a prepared dataset into its classes. `grading.py` adds an order to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from starling.infra.errors import UsageError
from starling.trainer.data.augment import Augment
from starling.trainer.data.decode import decode
from starling.trainer.data.fraction import stratified_share
from starling.trainer.data.index import load_index, locate
from starling.trainer.data.order import class_counts
from starling.trainer.data.read import Draws, ShardSamples
from starling.trainer.metrics.summary import CLASSIFICATION_METRICS, summarise_classification
from starling.trainer.models.build import build
from starling.trainer.models.head import head_path
from starling.trainer.models.sight import Sight
from starling.trainer.models.weights import start_from
from starling.trainer.options import describe
from starling.trainer.task import Batch, Samples, Scored, Task, TaskContext
from starling.trainer.tasks.losses import Loss, balanced_weights, cross_entropy
from starling.trainer.tasks.options import ClassificationOptions

TRAIN = "train"
AUGMENT = "augment"
"""Name under which a batch carries what augmentation is to do."""


class ClassificationTask(Task):
    """Any image classifier on any prepared dataset. Evaluates on split `val`, or else on `test`."""

    name = "classification"
    options_type: type[ClassificationOptions] = ClassificationOptions
    metric_names: Sequence[str] = CLASSIFICATION_METRICS

    def __init__(self, context: TaskContext) -> None:
        """UsageError if the spec names no model or dataset, an unknown option, or a dataset that is not there."""
        super().__init__(context)
        self._options = self._parse(context.options)
        self._model_name = self._required(context.model_name, "model", "small-cnn")
        self._dataset = self._required(context.dataset, "data.dataset", "digits")
        self._place = locate(context.store, self._dataset)
        self.index = load_index(context.store, self._dataset)
        self._augment = self._options.augment.build() if self._options.augment else None
        self.loss_name = "cross_entropy" if self._is_plain else "loss"
        self._check()

    @property
    def class_names(self) -> list[str]:
        """In the order of the model's outputs."""
        return self.index.classes

    @property
    def sight(self) -> Sight:
        """How its model wants to see images, for who asks it about others."""
        kind, size = self.index.image, self._options.height_and_width
        if size is None and kind.height is not None and kind.width is not None:
            size = (kind.height, kind.width)
        return Sight(mean=self._options.mean, std=self._options.std, size=size)

    def data_sha256(self) -> str:
        return self.index.content_sha256

    def build_model(self) -> torch.nn.Module:
        """UsageError if there is no such model, or if it takes images of another size only."""
        model = build(
            self._model_name,
            self.context.model_options,
            num_classes=len(self.class_names),
            in_channels=self.index.image.channels,
        )
        side, size = getattr(model, "image_size", None), self.sight.size
        if isinstance(side, int) and size is not None and size != (side, side):
            raise UsageError(
                f"task.options.image_size: {self._model_name} takes images of {side} x {side} pixels, and these have "
                f"{size[0]} x {size[1]}; give {side}, or build it for others with model.options.image_size"
            )
        return model

    def initialise(self, model: torch.nn.Module) -> None:
        start_from(model, self.context)

    def parts(self, model: torch.nn.Module) -> dict[str, list[str]]:
        """`head`, and `backbone`: everything else."""
        return {"head": [head_path(model)], "backbone": [""]}

    def train_samples(self) -> Samples:
        chosen, labels = self._share, self._train_labels
        strength = self._options.resample
        return ShardSamples(
            self._place,
            self.index,
            TRAIN,
            self.context.cache_dir,
            image_size=self._options.height_and_width,
            cache_bytes=self.context.cache_bytes,
            subset=chosen,
            labels_of=self._class_of(),
            counts=partial(_counts, labels, strength) if strength else None,
            draws=_draws(self._augment) if self._augment else None,
        )

    def val_samples(self) -> Samples | None:
        split = next((name for name in ("val", "test") if name in self.index.splits), None)
        return self.split_samples(split) if split else None

    def split_samples(self, split: str) -> Samples:
        """All of a split, as it is evaluated. UsageError if there is no such split."""
        return ShardSamples(
            self._place,
            self.index,
            split,
            self.context.cache_dir,
            image_size=self._options.height_and_width,
            cache_bytes=self.context.cache_bytes,
            labels_of=self._class_of(),
        )

    def weigh_as(self, trained: ClassificationTask) -> None:
        """Weigh classes in the loss as a task of the same classes does, whatever data this one reads: `balanced`
        weights are then of what the other trains on."""
        self._loss = trained._loss

    def image_batch(self, images: list[bytes]) -> Batch:
        """PNG or JPEG files, prepared as the dataset was, as a batch without labels. Raises OSError, SyntaxError or
        ValueError for what cannot be decoded; UsageError if images differ in size and `image_size` is not given."""
        kind = self.index.image
        size = self._options.height_and_width or (kind.height, kind.width)
        if size[0] is None or size[1] is None:
            raise UsageError("task.options.image_size: the dataset's images differ in size, so it must be given")
        pixels = [decode(data, kind.mode, (size[0], size[1])) for data in images]
        return {"image": torch.from_numpy(np.stack(pixels))}

    def score(self, model: torch.nn.Module, batch: Batch) -> Scored:
        logits = self._logits(model, batch)
        labels = batch["label"]
        entropies = cross_entropy(logits, labels)
        scores = {"accuracy": (logits.argmax(dim=1) == labels).float()}
        if not self._is_plain:
            scores["cross_entropy"] = entropies.detach()
        outputs = {} if model.training else {"probabilities": logits.detach().softmax(dim=1), "labels": labels}
        return Scored(losses=self._loss(entropies, labels), scores=scores, outputs=outputs)

    def probabilities(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """[b, classes] float32, each row summing to 1."""
        return self._logits(model, batch).softmax(dim=1)

    def summarise(self, outputs: dict[str, torch.Tensor]) -> dict[str, float]:
        """Those of the metrics that `task.options.metrics` names, as far as the split defines them."""
        found = self._metrics(outputs["probabilities"], outputs["labels"])
        chosen = self._options.metrics
        return found if chosen is None else {name: found[name] for name in chosen if name in found}

    def _metrics(self, probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        return summarise_classification(probabilities, labels)

    def _class_of(self) -> dict[int, int]:
        """Label in the dataset -> class."""
        return {label: label for label in range(len(self.index.classes))}

    @property
    def _is_plain(self) -> bool:
        return bool(self._options.loss.name == "cross_entropy")

    @cached_property
    def _share(self) -> list[int] | None:
        """Positions in the training split of the samples to learn from; None: all."""
        if self.context.data_fraction == 1 or TRAIN not in self.index.splits:
            return None
        samples = self.index.splits[TRAIN].samples
        labels = [sample.label for sample in samples]
        return stratified_share([sample.key for sample in samples], labels, self.context.data_fraction)

    @cached_property
    def _train_labels(self) -> torch.Tensor:
        """The class of each training sample; none if the dataset is for evaluation only."""
        split = self.index.splits.get(TRAIN)
        samples = split.samples if split else []
        chosen = range(len(samples)) if self._share is None else self._share
        class_of = self._class_of()
        return torch.tensor([class_of[samples[position].label] for position in chosen], dtype=torch.int64)

    @cached_property
    def _loss(self) -> Loss:
        chosen, classes = self._options.loss, len(self.class_names)
        weights = chosen.class_weights
        if isinstance(weights, list):
            table: torch.Tensor | None = torch.tensor(weights)
        elif weights == "balanced" and len(self._train_labels):
            table = balanced_weights(self._train_labels, classes, self._options.resample)
        else:
            table = None
        return Loss(weights=table, gamma=chosen.gamma if chosen.name == "focal" else 0.0)

    def _logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = model(self._pixels(batch)).float()
        return logits

    def _pixels(self, batch: Batch) -> torch.Tensor:
        """uint8 -> float, changed and normalised on the images' device: a quarter of the bytes to move, and fast."""
        images = batch["image"].to(torch.float32, memory_format=torch.contiguous_format) / 255
        if self._augment is not None and AUGMENT in batch:
            images = self._augment.apply(images, batch[AUGMENT])
        mean = torch.tensor(self._options.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self._options.std, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std

    def _parse(self, given: dict[str, Any]) -> Any:
        try:
            return self.options_type.model_validate(given)
        except ValidationError as error:
            raise UsageError(describe(error, "task.options", self.options_type)) from error

    def _required(self, value: str | None, key: str, example: str) -> str:
        if value is None:
            raise UsageError(f"{key}: task {self.name} needs one, for example {key.split('.')[-1]}: {example}")
        return value

    def _check(self) -> None:
        """What only the dataset can tell to be wrong."""
        options, channels = self._options, self.index.image.channels
        if len(options.mean) not in (1, channels):
            raise UsageError(
                f"task.options.mean: {len(options.mean)} numbers for images of {channels} channels; give one, or one "
                "for each channel"
            )
        weights, classes = options.loss.class_weights, len(self.class_names)
        if isinstance(weights, list) and len(weights) != classes:
            raise UsageError(
                f"task.options.loss.weights: {len(weights)} numbers for {classes} classes; give one for each"
            )
        if unknown := [name for name in options.metrics or () if name not in self.metric_names]:
            raise UsageError(
                f"task.options.metrics: there is no metric {unknown[0]!r}; there are {', '.join(self.metric_names)}"
            )


def _counts(labels: torch.Tensor, strength: float, seed: int, epoch: int) -> torch.Tensor:
    return class_counts(labels, seed, epoch, strength)


def _draws(augment: Augment) -> Draws:
    return lambda entries, seed, epoch: {AUGMENT: augment.draws(entries, seed=seed, epoch=epoch)}
