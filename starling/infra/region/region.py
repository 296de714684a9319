"""The whole region: cloud, S3 server and hypervisor."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from starling.infra.region.cloud import EmulatedCloud
from starling.infra.region.hypervisor import Hypervisor
from starling.infra.region.prices import DEFAULT_FILE
from starling.infra.region.s3_server import S3Server, s3_server

NOTICE_POLL = 5.0
"""Region seconds between two looks of an agent for a notice, as on a real machine."""
SHORTEST_POLL = 0.5


class EmulatedRegion:
    """A context manager; enter it in the main thread, since its S3 server dies with the thread that started it.

    with EmulatedRegion(folder) as region:
        os.environ.update(region.environment)
    """

    def __init__(
        self, folder: Path, *, region: str = "us-east-1", prices: Path = DEFAULT_FILE, scale: float = 1.0
    ) -> None:
        """`folder` is to hold everything. Its path must be short, since sockets lie below it (see bootstrap). `scale`
        region seconds pass in one second: agents look for notices as much more often."""
        self._folder = folder.resolve()
        self._region = region
        self._prices = prices
        self._scale = scale
        self._stack = ExitStack()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a process' AWS clients here. AWS_PROFILE must not be set."""
        return self.cloud.environment

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.s3: S3Server = stack.enter_context(s3_server(self._folder))
            self.cloud = stack.enter_context(EmulatedCloud(region=self._region, s3=self.s3, prices=self._prices))
            self.hypervisor = stack.enter_context(
                Hypervisor(
                    self.cloud,
                    self._folder / "vm",
                    environment=_of_machines(self.environment, self._scale),
                    access=(self.s3.access_key, self.s3.secret_key),
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _of_machines(environment: dict[str, str], scale: float) -> dict[str, str]:
    """The way to the region's services, but no credentials: a machine gets those of its role from its metadata."""
    poll = max(SHORTEST_POLL, NOTICE_POLL / scale)
    kept = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
    return {**{name: environment[name] for name in kept}, "STARLING_AGENT_OPTIONS": f"--notice-poll {poll:g}"}
