"""What PyTorch's DataLoader makes of the bytes of images: a look at them, or pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.data_peers.turn import Job, Seen, seen

Collate = Callable[[Sequence[bytes]], "Seen | torch.Tensor"]


def collate(job: Job) -> Collate:
    """Runs in the workers. Undecoded, only counts travel to the training process, never the bytes."""
    return pixels if job.decode else partial(seen, job=job)


def pixels(images: Sequence[bytes]) -> torch.Tensor:
    """uint8 [b, height, width, 3], decoded by Pillow."""
    return torch.from_numpy(np.stack([np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in images]))


def batches(loader: Any) -> Iterator[Seen]:
    """What a loader with our `collate` hands over."""
    for batch in loader:
        yield Seen(images=len(batch)) if isinstance(batch, torch.Tensor) else batch


def load(dataset: Dataset[bytes], job: Job) -> Iterator[Seen]:
    """One epoch of a map-style dataset, shuffled, with PyTorch's own loader."""
    order = np.random.default_rng(0).permutation(job.count)[job.start : job.limit].tolist()
    return batches(DataLoader(dataset, job.batch, sampler=order, num_workers=job.workers, collate_fn=collate(job)))
