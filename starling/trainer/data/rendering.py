"""Reads and renders images in parallel, and hands them on in their order, holding only a few at a time."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from starling.infra.errors import ObjectNotFound, StarlingError
from starling.infra.store.oserrors import store_error
from starling.trainer.data.rendition import Rendered, Rendition, render, why_unusable
from starling.trainer.data.sources.found import FoundImage
from starling.trainer.data.worker_processes import worker_processes

WORTH_A_WORKER = 16 * 2**20
"""Bytes of source for which starting one more process pays: it takes a second."""
CHUNK_BYTES = 8 * 2**20
CHUNK_IMAGES = 32
"""A chunk is what one worker gets at a time: at most so many images and, but for the last image, so many bytes."""
THREADS = 4
"""Of one worker, so that it computes while it waits for a store."""
LARGEST_FILE = 2**30
"""Bytes. No image has more; a file that has would fill the memory."""
OF_ONE_FILE = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM),
    *(errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
)
"""What the operating system may say of an image that is left out then. Anything else concerns the disk or the process,
and to go on would be to leave out image after image."""

Outcome = Rendered | str
"""A str says why the image cannot be used."""


def useful_workers(images: list[FoundImage]) -> int:
    """Processes to use unless the user says."""
    return max(min(os.cpu_count() or 1, sum(image.size for image in images) // WORTH_A_WORKER), 1)


@dataclass
class Renderer:
    """A context: workers live within it. With one worker everything is done in this process. Leaving it raises NoRoom
    if a worker was killed."""

    rendition: Rendition
    workers: int
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _threads: ThreadPoolExecutor | None = field(default=None, init=False)
    _processes: ProcessPoolExecutor | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        if self.workers > 1:
            self._processes = self._stack.enter_context(worker_processes(self.workers))
        else:
            self._threads = self._stack.enter_context(ThreadPoolExecutor(THREADS, thread_name_prefix="prepare"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def outcomes(self, images: Iterable[FoundImage]) -> Iterator[tuple[FoundImage, Outcome]]:
        """Every image with what became of it, in the order given. Raises the store's errors."""
        waiting: deque[tuple[list[FoundImage], Future[list[Outcome]]]] = deque()
        chunks = _chunks(images)
        while True:
            while len(waiting) < 2 * self.workers and (chunk := next(chunks, None)):
                waiting.append((chunk, self._submit(chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            yield from zip(chunk, future.result(), strict=True)

    def first_usable(self, images: Iterable[FoundImage]) -> FoundImage | None:
        """The first of them that can be used, if any. Raises the store's errors."""
        return next((image for image, outcome in self.outcomes(images) if isinstance(outcome, Rendered)), None)

    def _submit(self, chunk: list[FoundImage]) -> Future[list[Outcome]]:
        if self._processes is not None:
            return self._processes.submit(_render_chunk, chunk, self.rendition)
        done: Future[list[Outcome]] = Future()
        assert self._threads is not None
        done.set_result(list(self._threads.map(lambda image: _render_one(image, self.rendition), chunk)))
        return done


def _chunks(images: Iterable[FoundImage]) -> Iterator[list[FoundImage]]:
    chunk: list[FoundImage] = []
    size = 0
    for image in images:
        chunk.append(image)
        size += image.size
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _render_chunk(chunk: list[FoundImage], rendition: Rendition) -> list[Outcome]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda image: _render_one(image, rendition), chunk))


def _render_one(image: FoundImage, rendition: Rendition) -> Outcome:
    if image.size > LARGEST_FILE:
        return f"the file has {image.size:,} bytes, more than {LARGEST_FILE:,}"
    try:
        data = _read(image)
        return render(data, rendition) if data else "the file is empty (0 bytes)"
    except ObjectNotFound:
        return "it is not there any more"
    except StarlingError:
        raise  # the place fails, not the image
    except Exception as error:  # Pillow raises almost anything on damaged input; the user gets it as the reason
        return why_unusable(error)


def _read(image: FoundImage) -> bytes:
    try:
        return image.read()
    except OSError as error:
        if error.errno in OF_ONE_FILE:
            raise
        raise store_error("read", Path(image.key), error) from error
