"""An emulated region in a process of its own, as whoever started it sees it; the other side is `__main__.py`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

from starling.infra.errors import StarlingError

OPEN_SECONDS = 60.0
CLOSE_SECONDS = 60.0
LOG = "region.log"


class RegionProcess:
    """A context manager: the region is open inside its block. If we die, it ends by itself and removes `folder`."""

    def __init__(
        self, folder: Path, *, home: Path, options: Sequence[str] = (), said: Callable[[str], None] = lambda _text: None
    ) -> None:
        """`home`: everything with this STARLING_HOME ends with the region. `options`: see `__main__.py`. `said` is
        called, from another thread, with what the script does."""
        self.environment: dict[str, str] = {}
        self._folder = folder
        self._command = [
            *(sys.executable, "-P", "-m", "starling.infra.region", str(folder), "--home", str(home)),
            *options,
        ]
        self._said = said
        self._opened: Queue[dict[str, str]] = Queue()

    def begin(self) -> None:
        """Start the script's clock."""
        self._send("begin")

    def __enter__(self) -> Self:
        """Raises StarlingError if the region does not open."""
        with (self._folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        threading.Thread(target=self._listen, name="region", daemon=True).start()
        try:
            self.environment = self._wait_until_open()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises StarlingError if the region has not ended well, unless there is another error already."""
        code = self._end()
        if code != 0 and error is None:
            raise StarlingError(f"the emulated region failed: {self._last_words()}")

    def _wait_until_open(self) -> dict[str, str]:
        for _ in range(int(OPEN_SECONDS * 5)):
            with contextlib.suppress(Empty):
                return self._opened.get(timeout=0.2)
            if self._process.poll() is not None:
                raise StarlingError(f"the emulated region did not open: {self._last_words()}")
        raise StarlingError(f"the emulated region was not open after {OPEN_SECONDS:.0f} s: {self._last_words()}")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            if "environment" in told:
                self._opened.put(told["environment"])
            else:
                self._said(told["said"])

    def _send(self, word: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: whoever waits for it finds out why
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()

    def _end(self) -> int:
        self._send("end")
        try:
            return self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _last_words(self) -> str:
        text = (self._folder / LOG).read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-10:]) or "it said nothing"
