"""Asks a run's model about image files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from starling.infra.errors import StarlingError, UsageError
from starling.trainer.data.index import DatasetIndex
from starling.trainer.data.rendition import QUALITY, Rendition, render, why_unusable
from starling.trainer.data.sources.files import list_files, read_anywhere
from starling.trainer.data.sources.found import SUFFIXES
from starling.trainer.judging.loading import Loaded
from starling.trainer.step import Stepper
from starling.trainer.task import Batch, Classifies

BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a model says about one image."""

    path: str
    """As it was given; for a folder's images below it."""
    probabilities: dict[str, float] | None
    """Class -> probability; None: the image cannot be read."""
    error: str | None
    """Why not."""

    @property
    def class_name(self) -> str | None:
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    path: str
    read: Callable[[], bytes]


def predict(loaded: Loaded, images: list[Image], batch: int = BATCH) -> Iterator[Prediction]:
    """One prediction for each image, in their order; images that cannot be read do not hold up the others.

    Raises UsageError if the run's task cannot be asked about image files.
    """
    task = loaded.task
    if not isinstance(task, Classifies):
        raise UsageError(
            f"the task {loaded.job.task} cannot be asked about image files: it lacks class_names, probabilities() and "
            "image_batch(), see starling.trainer.task.Classifies"
        )
    stepper, rendition = loaded.stepper(), _rendition(loaded.index)
    loaded.model.eval()
    for start in range(0, len(images), batch):
        yield from _predict_batch(stepper, task, rendition, images[start : start + batch])


def find_images(place: str) -> list[Image]:
    """An image file as it is; all images below a folder, by path. Raises UsageError for a folder without any, and for
    a URI the store's errors."""
    path = place.partition("?")[0] if "://" in place else place
    is_folder = not path.lower().endswith(SUFFIXES) if "://" in place else Path(place).expanduser().is_dir()
    if not is_folder:
        return [Image(path=place, read=lambda: read_anywhere(place))]
    options = place[len(path) :]
    base = path if path.endswith("/") else f"{path}/"
    found = [file for file in list_files(place).files if file.suffix in SUFFIXES]
    if not found:
        raise UsageError(f"{place} holds no images ({', '.join(SUFFIXES)})")
    return [Image(path=f"{base}{file.path}{options}", read=file.read) for file in found]


def _rendition(index: DatasetIndex | None) -> Rendition:
    """What `data prepare` did to the images that the model has learned from."""
    if index is None:
        return Rendition()
    done = index.prepared
    quality = done.quality if done.quality is not None else QUALITY
    return Rendition(size=done.size, crop_retina=done.crop_retina, quality=quality, lossless=done.lossless)


def _predict_batch(
    stepper: Stepper, task: Classifies, rendition: Rendition, images: list[Image]
) -> Iterator[Prediction]:
    decoded = [_decode(task, rendition, image) for image in images]
    usable = [each for each in decoded if isinstance(each, dict)]
    rows = iter(_probabilities(stepper, task, usable).tolist() if usable else [])
    for image, each in zip(images, decoded, strict=True):
        if isinstance(each, str):
            yield Prediction(path=image.path, probabilities=None, error=each)
        else:
            of_class = dict(zip(task.class_names, next(rows), strict=True))
            yield Prediction(path=image.path, probabilities=of_class, error=None)


def _decode(task: Classifies, rendition: Rendition, image: Image) -> Batch | str:
    """A batch of one, or why there is none."""
    try:
        data = image.read()
        return task.image_batch([render(data, rendition).data]) if data else "the file is empty (0 bytes)"
    except StarlingError as error:
        return str(error)
    except Exception as error:  # Pillow raises almost anything on damaged input; the user gets it as the reason
        return why_unusable(error)


def _probabilities(stepper: Stepper, task: Classifies, batches: list[Batch]) -> torch.Tensor:
    """[images, classes] float32 on the CPU."""
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    on_device, _ = stepper.to_device(whole, torch.ones(len(batches)))
    with torch.no_grad(), stepper.autocast():
        return task.probabilities(stepper.model, on_device).float().cpu()
