"""Sources that need no files, by the word that stands for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starling.trainer.data.sources.digits import DIGITS, digits
from starling.trainer.data.sources.found import Source
from starling.trainer.data.sources.rendered import RENDERED, rendered_fundus

BUILT_IN: Mapping[str, Callable[[], Source]] = {DIGITS: digits, RENDERED: rendered_fundus}
