"""What is found at a source: images with their classes, and everything that is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from starling.trainer.data.index import LeftOut

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of images, in small letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImage:
    class_name: str
    key: str
    """Path within the source; unique. Its hash decides where in a split the image lies."""
    split: str | None = None
    """None: the source does not say."""
    patient: str | None = None
    """Whose image it is; None: the source does not tell."""
    size: int = 0
    """Bytes."""
    stamp: str = ""
    """Changes when the image is rewritten: time of change or etag."""
    read: Callable[[], bytes]
    """The image's bytes. Can be sent to another process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    description: str
    layout: str
    """How it was understood, for people."""
    images: list[FoundImage]
    ignored: dict[str, int] = field(default_factory=dict)
    """What lies there and is neither image nor table: kind -> count."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Images without a label, rows without an image, and so on."""
    split_by: Literal["hash", "column", "folders"] = "hash"
    """What says which split an image belongs to; "hash": nothing does, it has to be split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """What the user says about the table of labels; whatever is None is found out."""

    path: str | None = None
    """Within the source, or anywhere: a path or a URI."""
    image_column: str | None = None
    label_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None

    @property
    def given(self) -> bool:
        return any((self.path, self.image_column, self.label_column, self.patient_column, self.split_column))
