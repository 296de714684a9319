"""From options to a store, a provider, a view of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from starling.cli.output import note
from starling.infra.errors import ProviderError
from starling.infra.home import starling_home
from starling.infra.providers.base import Machine, Provider
from starling.infra.records import Event, Verdict
from starling.infra.store import Store, open_store
from starling.orchestrator.provider_sections import AwsSection
from starling.orchestrator.provisioning import provider_for
from starling.orchestrator.reading import RunReader
from starling.orchestrator.report import View
from starling.orchestrator.runs import check_reach
from starling.orchestrator.spec import Spec


def store_for(uri: str | None, spec: Spec | None = None, spec_file: Path | None = None) -> Store:
    """--store, else the spec's, else $STARLING_STORE, else the bucket of `starling aws setup` if the spec's nodes are
    on AWS, else $STARLING_HOME/store. Raises UsageError for a store that the spec's nodes could not reach."""
    if uri is None and spec is not None and spec.store is not None:
        uri = _beside(spec.store, spec_file)
    uri = uri or os.environ.get("STARLING_STORE")
    if uri is None and spec is not None and isinstance(spec.provider, AwsSection):
        from starling.infra.providers.aws.stack import default_store_uri

        uri = default_store_uri(spec.provider.model_dump())
    store = open_store(uri or str(starling_home() / "store"))
    if spec is not None:
        check_reach(store, spec)
    return store


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
        self._provider: tuple[dict[str, Any], Provider] | None = None
        self._machines: tuple[float, list[Machine]] | None = None

    def provider_section(self) -> dict[str, Any]:
        """Of the current incarnation's spec."""
        return self._reader.spec(self._reader.record()).provider.model_dump()

    def provider(self) -> Provider:
        """The same one as long as the spec is the same: it may keep connections open."""
        section = self.provider_section()
        if self._provider is None or self._provider[0] != section:
            self._provider = (section, provider_for(section, self.store.uri))
        return self._provider[1]

    def machines(self) -> list[Machine]:
        """What the provider shows from here, asked no more often than it likes; nothing if it cannot be asked."""
        try:
            provider = self.provider()
            if self._machines is None or time.time() >= self._machines[0] + provider.pace.list_busy:
                self._machines = (time.time(), provider.list(self.run))
            return self._machines[1]
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
