"""What `prepare` can read: the digits that scikit-learn ships, and folders of images."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from starling.infra.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg")
DIGITS = "digits"
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
VALIDATION_PART = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImage:
    split: str
    class_name: str
    key: str
    """Path within the source; unique, and the order in which images are written."""
    read: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    description: str
    images: list[FoundImage]
    ignored: dict[str, int] = field(default_factory=dict)
    """What lies there and is no image in a class: kind -> count."""


def find_images(source: str) -> Source:
    """List the images of "digits" or of an image folder (write `./digits` for a folder of that name).

    A folder holds `<class>/...` or `{train,val|valid|test}/<class>/...`; only the first is split here, one fifth of
    each class for validation, chosen by a hash of the path. UsageError says what is wrong and what would be right.
    """
    return _digits() if source == DIGITS else _folder(Path(source))


def validation_keys(keys: Iterable[str]) -> set[str]:
    """The fifth of one class's keys that validates: those with the smallest hash; at least one of two."""
    ranked = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    return set(ranked[: max(round(len(ranked) * VALIDATION_PART), int(len(ranked) > 1))])


def _digits() -> Source:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from error
    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype("uint8")
    by_class: dict[str, dict[str, Callable[[], bytes]]] = defaultdict(dict)
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        by_class[str(label)][f"{label}/{number:04}.png"] = partial(_png, Image.fromarray(image))
    return Source(description=DIGITS, images=_split_classes(by_class))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)  # uncompressed: the bytes do not depend on the zlib in use
    return buffer.getvalue()


def _folder(root: Path) -> Source:
    if not root.is_dir():
        raise UsageError(f'there is no folder {root} to read images from (give a folder, or "{DIGITS}")')
    ignored: Counter[str] = Counter()
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if "train" in {folder.name for folder in folders} and all(folder.name in SPLIT_FOLDERS for folder in folders):
        images = _split_folders(root, folders, ignored)
    else:
        images = _split_classes(_classes(root, root, ignored))
    _check(root, images, ignored)
    return Source(description=str(root), images=images, ignored=dict(ignored))


def _split_folders(root: Path, folders: list[Path], ignored: Counter[str]) -> list[FoundImage]:
    names = [folder.name for folder in folders]
    if "val" in names and "valid" in names:
        raise UsageError(f"{root} has both val/ and valid/: keep one of them for validation")
    return [
        FoundImage(split=SPLIT_FOLDERS[folder.name], class_name=class_name, key=key, read=read)
        for folder in folders
        for class_name, files in _classes(root, folder, ignored).items()
        for key, read in files.items()
    ]


def _split_classes(by_class: dict[str, dict[str, Callable[[], bytes]]]) -> list[FoundImage]:
    images = []
    for class_name, files in sorted(by_class.items()):
        held_out = validation_keys(files)
        for key, read in files.items():
            split = "val" if key in held_out else "train"
            images.append(FoundImage(split=split, class_name=class_name, key=key, read=read))
    return images


def _classes(root: Path, folder: Path, ignored: Counter[str]) -> dict[str, dict[str, Callable[[], bytes]]]:
    """Class name -> key -> reader, for every class folder that holds an image somewhere below it."""
    classes = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            ignored["hidden"] += 1
        elif not path.is_dir():
            ignored["outside a class folder"] += 1
        elif files := _image_files(root, path, ignored):
            classes[_text(path.name)] = files
        else:
            ignored["folder without images"] += 1
    return classes


def _image_files(root: Path, folder: Path, ignored: Counter[str]) -> dict[str, Callable[[], bytes]]:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        if path.name.startswith("."):
            ignored["hidden"] += 1
        elif path.suffix.lower() in SUFFIXES:
            files[_text(path.relative_to(root).as_posix())] = path.read_bytes
        else:
            ignored[path.suffix.lower() or "no suffix"] += 1
    return files


def _text(name: str) -> str:
    """File names are bytes; those that are no UTF-8 are spelled with escapes, so that they can stand in JSON."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _check(root: Path, images: list[FoundImage], ignored: Counter[str]) -> None:
    layout = f"expected {root}/<class>/*{{{','.join(SUFFIXES)}}} or {root}/{{train,val,test}}/<class>/*"
    if not images:
        seen = ", ".join(f"{kind}: {count}" for kind, count in sorted(ignored.items())) or "it is empty"
        raise UsageError(f"no images found in {root} ({seen}); {layout}")
    trained = {image.class_name for image in images if image.split == "train"}
    if len(trained) < 2:
        only = ", ".join(sorted(trained)) or "none at all"
        raise UsageError(f"{root} has only one class to learn ({only}); two or more are needed: {layout}")
    if unknown := sorted({image.class_name for image in images} - trained):
        raise UsageError(f"{root} has classes to evaluate that train/ lacks: {', '.join(unknown)}")
