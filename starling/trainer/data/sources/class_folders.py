"""Classes as folders: `<class>/...`, or `{train,val|valid|test}/<class>/...`."""

from __future__ import annotations

import re
from collections import Counter

from starling.infra.errors import UsageError
from starling.trainer.data.sources.files import Listing, SourceFile
from starling.trainer.data.sources.found import SUFFIXES, FoundImage, Source

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""In small letters; a source may write them otherwise."""
_NO_CLASS = re.compile(r"(train|val|valid|validation|test|images?|jpe?g|png|data|input)([ _-].*)?", re.IGNORECASE)
"""Folders that people keep images in next to a table of labels."""


def looks_like_class_folders(listing: Listing) -> bool:
    """Whether the images lie in two or more folders that may be meant as classes."""
    images = _image_paths(listing)
    tops = {parts[0] for parts in images}
    if _are_splits(tops):
        return len({parts[1] for parts in images if len(parts) > 2}) > 1
    return sum(not _NO_CLASS.fullmatch(top) for top in tops) > 1


def class_folders(listing: Listing) -> Source:
    """UsageError says what is wrong with the folders, and what would be right."""
    paths = _image_paths(listing)
    tops = {parts[0] for parts in paths}
    splits = _are_splits(tops)
    if not splits:
        _refuse_half_splits(listing.root, paths)
    validating = sorted(top for top in tops if SPLIT_FOLDERS.get(top.lower()) == "val")
    if splits and len(validating) > 1:
        raise UsageError(f"{listing.root} has both {validating[0]}/ and {validating[1]}/: keep one of them")
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


def _image_paths(listing: Listing) -> list[list[str]]:
    """Of the images in folders, segment by segment. What else lies there, like a dataset, says nothing of classes."""
    return [file.path.split("/") for file in listing.files if file.suffix in SUFFIXES and "/" in file.path]


def _are_splits(tops: set[str]) -> bool:
    names = {top.lower() for top in tops}
    return "train" in names and names <= SPLIT_FOLDERS.keys()


def _refuse_half_splits(root: str, paths: list[list[str]]) -> None:
    """A folder called train may be a class (of vehicles). One that holds folders of images is a split, so that to take
    it for a class would be to learn nonsense."""
    others = sorted({parts[0] for parts in paths if parts[0].lower() not in SPLIT_FOLDERS})
    for top in sorted({parts[0] for parts in paths if parts[0].lower() in SPLIT_FOLDERS}):
        if len({parts[1] for parts in paths if parts[0] == top and len(parts) > 2}) > 1:
            beside = f"{others[0]}/ beside it is no split" if others else "there is no train/"
            raise UsageError(
                f"{root}: {top}/ looks like a split, since it holds folders of images, but {beside}: "
                f"call the splits train, val and test, and keep nothing else in {root}"
            )


def _image(file: SourceFile, ignored: Counter[str], *, splits: bool) -> FoundImage | None:
    folders = file.path.split("/")[:-1]
    split = SPLIT_FOLDERS.get(folders.pop(0).lower()) if splits and folders else None
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
