"""Starling itself as an archive in the store, which nodes boot from."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from starling.infra.bootstrap.pip_wheel import write_pip_wheel
from starling.infra.code import pack_code
from starling.infra.errors import UsageError
from starling.infra.store.base import Store

PACKAGE = "starling"
REQUIREMENTS = "requirements.txt"
NODE_EXTRAS = ("train",)
"""Of our optional dependencies, what a node needs."""

_FOLDER = Path(__file__).parents[2]


def pack_package(store: Store) -> str:
    """Put this very Starling, checkout or installed wheel, into the store; return the SHA-256 that names the archive.

    Beside the package it holds `requirements.txt`, what nodes install, and the pip to install it with (1.4 MB), because
    not every image has one; the versions to install are package data (`constraints.txt` beside this file). The same
    content gives the same hash. Costs one conditional put each time. Raises UsageError if there is no pip here that
    serves.
    """
    with tempfile.TemporaryDirectory(prefix="starling-package-") as aside:
        # Links are followed: what they lead to is what a wheel would hold.
        shutil.copytree(_FOLDER, Path(aside) / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        (Path(aside) / REQUIREMENTS).write_text(requirements())
        write_pip_wheel(Path(aside))
        return pack_code(Path(aside), store)


def requirements() -> str:
    """What pip is to install on a node, one requirement a line. Raises UsageError if Starling is not installed here."""
    try:
        declared = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise UsageError("this Python has no Starling installed; `pip install -e .` in its folder does it") from error
    return "".join(f"{line}\n" for line in sorted(_of_nodes(declared)))


def _of_nodes(declared: Iterable[str]) -> Iterable[str]:
    """Requirements without a condition, and those of our extras; we declare no other conditions."""
    wanted = {"", *(f'extra == "{extra}"' for extra in NODE_EXTRAS)}
    for line in declared:
        requirement, _, condition = line.partition(";")
        if condition.strip() in wanted:
            yield requirement.strip()
