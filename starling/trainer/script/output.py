"""What a script prints: passed on at once, its last lines kept, and when it last printed at all."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs

KEPT_BYTES = 16 << 10
LAST_LINES = 40
END_SECONDS = 2.0
"""How long the rest of the output is waited for once all processes have ended."""


class ScriptOutput(LogsSpecs):
    """TorchElastic opens a path for each process' output; these lead into pipes that we read."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where scripts that use torch's `@record` describe their errors, as under torchrun."""
        super().__init__()
        self._folder = folder
        self._readers: dict[int, _Reader] = {}
        self.printed_at = 0.0
        """Seconds since the epoch; of any process."""

    @property
    def root_log_dir(self) -> str:
        return str(self._folder)

    def reify(self, envs: Mapping[int, dict[str, str]]) -> LogsDest:
        """Called by TorchElastic before it starts the processes of a round."""
        self._folder.mkdir(parents=True, exist_ok=True)
        errors = {local_rank: str(self._folder / f"error-{local_rank}.json") for local_rank in envs}
        for local_rank, environment in envs.items():
            environment["TORCHELASTIC_ERROR_FILE"] = errors[local_rank]
        self._readers = {local_rank: _Reader(self) for local_rank in envs}
        paths = {local_rank: f"/dev/fd/{reader.write_end}" for local_rank, reader in self._readers.items()}
        return LogsDest(stdouts=paths, stderrs=paths, error_files=errors)

    def started(self) -> None:
        """The processes hold their ends of the pipes: ours must go, for the output to have an end."""
        for reader in self._readers.values():
            reader.close_write_end()

    def ended(self) -> None:
        """All processes are gone: take in what is left."""
        for reader in self._readers.values():
            reader.thread.join(END_SECONDS)

    def last_lines(self, local_rank: int) -> list[str]:
        """The end of what one process printed, without empty lines."""
        text = bytes(self._readers[local_rank].kept).decode(errors="replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-LAST_LINES:]


class _Reader:
    def __init__(self, output: ScriptOutput) -> None:
        self._output = output
        self._read_end, self.write_end = os.pipe()
        self._open = True
        self.kept = bytearray()
        self.thread = threading.Thread(target=self._read, name="script-output", daemon=True)
        self.thread.start()

    def close_write_end(self) -> None:
        if self._open:
            os.close(self.write_end)
            self._open = False

    def _read(self) -> None:
        with open(self._read_end, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 16):
                self._output.printed_at = time.time()
                self.kept += data
                del self.kept[:-KEPT_BYTES]
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
