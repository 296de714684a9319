"""Classes as folders: `<class>/...`, or `{train,val|valid|test}/<class>/...`."""

from __future__ import annotations

import re
from collections import Counter

from starling.infra.errors import UsageError
from starling.trainer.data.sources.files import Listing, SourceFile
from starling.trainer.data.sources.found import SUFFIXES, FoundImage, Source

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_NO_CLASS = re.compile(r"(train|val|valid|validation|test|images?|jpe?g|png|data|input)([ _-].*)?", re.IGNORECASE)
"""Folders that people keep images in next to a table of labels."""


def looks_like_class_folders(listing: Listing) -> bool:
    """Whether the images lie in two or more folders that may be meant as classes."""
    images = [file.path.split("/") for file in listing.files if file.suffix in SUFFIXES]
    tops = {parts[0] for parts in images if len(parts) > 1}
    if _are_splits(tops):
        return len({parts[1] for parts in images if len(parts) > 2}) > 1
    return sum(not _NO_CLASS.fullmatch(top) for top in tops) > 1


def class_folders(listing: Listing) -> Source:
    """UsageError says what is wrong with the folders, and what would be right."""
    tops = {file.path.split("/")[0] for file in listing.files if "/" in file.path}
    splits = _are_splits(tops)
    if splits and {"val", "valid"} <= tops:
        raise UsageError(f"{listing.root} has both val/ and valid/: keep one of them for validation")
    ignored = Counter(listing.ignored)
    images = [image for file in listing.files if (image := _image(file, ignored, splits=splits))]
    _check(listing.root, images, ignored)
    return Source(
        description=listing.root,
        layout="split folders" if splits else "class folders",
        images=images,
        ignored={kind: count for kind, count in sorted(ignored.items()) if count},
        split_by="folders" if splits else "hash",
    )


def _are_splits(tops: set[str]) -> bool:
    return "train" in tops and tops <= SPLIT_FOLDERS.keys()


def _image(file: SourceFile, ignored: Counter[str], *, splits: bool) -> FoundImage | None:
    folders = file.path.split("/")[:-1]
    split = SPLIT_FOLDERS[folders.pop(0)] if splits and folders else None
    if not folders:
        ignored["outside a class folder"] += 1
    elif file.suffix not in SUFFIXES:
        ignored[file.suffix or "no suffix"] += 1
    else:
        return FoundImage(
            class_name=folders[0], key=file.path, split=split, size=file.size, stamp=file.stamp, read=file.read
        )
    return None


def _check(root: str, images: list[FoundImage], ignored: Counter[str]) -> None:
    layout = f"expected {root}/<class>/*{{{','.join(SUFFIXES)}}} or {root}/{{train,val,test}}/<class>/*"
    if not images:
        seen = ", ".join(f"{kind}: {count}" for kind, count in sorted(ignored.items()) if count) or "it is empty"
        raise UsageError(f"no images found in {root} ({seen}); {layout}, or a CSV of labels (--labels FILE)")
    trained = {image.class_name for image in images if image.split in (None, "train")}
    if len(trained) < 2:
        only = ", ".join(sorted(trained)) or "none at all"
        raise UsageError(
            f"{root} has only one class to learn ({only}); two or more are needed: {layout}, or a CSV of labels "
            "(--labels FILE)"
        )
    if unknown := sorted({image.class_name for image in images} - trained):
        raise UsageError(f"{root} has classes to evaluate that train/ lacks: {', '.join(unknown)}")
