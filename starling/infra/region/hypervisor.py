"""Gives the emulated cloud's instances what moto lacks: each is a set of real processes that boots its user data.

One thread looks at the cloud again and again: a new instance is booted, a terminated one is cut off, a warned one is
told through its metadata service, and one that powered itself off is terminated in the cloud.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from starling.infra.region.cloud import EmulatedCloud, MachineView
from starling.infra.region.guest import Guest

TICK_SECONDS = 0.1

_log = logging.getLogger(__name__)


class Hypervisor:
    """A context manager. Instances that are on at its end are cut off."""

    def __init__(
        self, cloud: EmulatedCloud, folder: Path, *, environment: dict[str, str], access: tuple[str, str]
    ) -> None:
        """`environment` and `access`: see Guest."""
        self._cloud = cloud
        self._folder = folder
        self._environment = environment
        self._access = access
        self._on: dict[str, Guest] = {}
        self._seen: dict[str, Guest] = {}
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hypervisor", daemon=True)

    def __enter__(self) -> Self:
        self._cloud.console = self.console
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raises what the hypervisor has died of, if it has."""
        if self._error is not None:
            raise self._error

    def console(self, instance_id: str) -> str:
        """What an instance has printed so far, ended ones included."""
        guest = self._seen.get(instance_id)
        return guest.console() if guest is not None else ""

    def folder(self, instance_id: str) -> Path:
        return self._folder / instance_id

    def _run(self) -> None:
        """Everything in this one thread: keepers are its children."""
        try:
            while not self._stop.wait(TICK_SECONDS):
                self._look()
        except BaseException as error:  # handed to whoever ends or checks us
            self._error = error
            _log.exception("the hypervisor has died")
        finally:
            self._all_off()

    def _look(self) -> None:
        views = {view.id: view for view in self._cloud.instances()}
        for view in views.values():
            if view.state == "running" and view.id not in self._seen:
                self._boot(view)
        for guest in list(self._on.values()):
            self._attend(guest, views.get(guest.id))

    def _boot(self, view: MachineView) -> None:
        guest = Guest(view, self.folder(view.id), environment=self._environment, access=self._access)
        self._on[view.id] = self._seen[view.id] = guest
        _log.info("%s (%s in %s, %s) is on", view.id, view.type, view.zone, view.market.value)

    def _attend(self, guest: Guest, view: MachineView | None) -> None:
        if guest.ended:
            if view is not None and view.state == "running":
                _log.info("%s %s", guest.id, "powered itself off" if guest.ended_itself else "lost its keeper")
                self._cloud.powered_off(guest.id)
            guest.off()
            del self._on[guest.id]
        elif view is None or view.state != "running":
            guest.cut()
        else:
            guest.tell(self._cloud.warned(guest.id))

    def _all_off(self) -> None:
        for guest in self._on.values():
            guest.cut()  # all at once, then wait for each
        for guest in self._on.values():
            guest.off()
        self._on.clear()
