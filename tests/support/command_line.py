"""Runs the command line in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from starling.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """A table's lines in words, its head first."""
        return [line.split() for line in self.out.splitlines()]


Starling = Callable[..., Ran]


def command_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *first: str) -> Starling:
    """What runs `starling FIRST... ARGUMENTS...`."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["starling", *first, *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return Ran(int(end.value.code or 0), out, err)

    return run
