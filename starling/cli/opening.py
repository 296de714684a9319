"""From options to a store, a provider, a view of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from starling.cli.output import note
from starling.infra.errors import ProviderError
from starling.infra.home import starling_home
from starling.infra.providers.base import Machine, Provider
from starling.infra.records import Event, Verdict
from starling.infra.store import Store, open_store
from starling.orchestrator.provisioning import provider_for
from starling.orchestrator.reading import RunReader
from starling.orchestrator.report import View
from starling.orchestrator.spec import Spec


def store_for(uri: str | None, spec: Spec | None = None, spec_file: Path | None = None) -> Store:
    """--store, else the spec's, else $STARLING_STORE, else $STARLING_HOME/store."""
    if uri is None and spec is not None and spec.store is not None:
        uri = _beside(spec.store, spec_file)
    return open_store(uri or os.environ.get("STARLING_STORE") or str(starling_home() / "store"))


def _beside(store: str, spec_file: Path | None) -> str:
    """A relative folder in a spec is meant relative to the spec, like its code folder."""
    if "://" in store or store.startswith(("/", "~")) or spec_file is None:
        return store
    return str((spec_file.parent / store).resolve())


class OpenRun:
    """One run, to be looked at from this machine."""

    def __init__(self, store: Store, run: str) -> None:
        self.store = store
        self.run = run
        self._reader = RunReader(store, run)
        self._reader.record()  # an unknown run is reported before anything else
        self._complained = False

    def provider(self) -> Provider:
        spec = self._reader.spec(self._reader.record())
        return provider_for(spec.provider.model_dump(), self.store.uri)

    def machines(self) -> list[Machine]:
        """What the provider shows from here; nothing if it cannot be asked from here."""
        try:
            return self.provider().list(self.run)
        except ProviderError as error:
            if not self._complained:
                note(f"machines are not shown: {error}")
            self._complained = True
            return []

    def verdict(self) -> Verdict | None:
        """Of the current incarnation."""
        return self._reader.verdict(self._reader.record())

    def events(self) -> list[Event]:
        """Oldest first."""
        return self._reader.events()

    def view(self) -> View:
        return self._reader.view(self.machines(), time.time())
