"""What plain `torchrun --rdzv-backend=starling` finds (docs/rendezvous.md).

In a module of its own: torch loads its plugins while its rendezvous package is being imported, and so before anything
that needs that package can be.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from starling.infra.store import open_store

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousParameters

    from starling.trainer.rendezvous import StoreRendezvous


def handler_factory() -> Callable[[RendezvousParameters], StoreRendezvous]:
    """Entry point `torchrun.handlers`."""
    return create_handler


def create_handler(parameters: RendezvousParameters) -> StoreRendezvous:
    """Build the handler from torchrun's `--rdzv-*` options; `--rdzv-conf` takes `join_timeout`, `window`, `beat`
    and `missed_beats`, whole seconds."""
    from starling.trainer.rendezvous import Settings, StoreRendezvous

    store = open_store(parameters.endpoint)
    chosen = {name: parameters.get_as_int(name) for name in ("join_timeout", "window", "beat", "missed_beats")}
    settings = Settings(
        least=parameters.min_nodes,
        most=parameters.max_nodes,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    address = parameters.local_addr or _own_address()
    return StoreRendezvous(store, f"rendezvous/{parameters.run_id}", parameters.run_id, address, settings)


def _own_address() -> str:
    """The address by which the default route leaves this machine; loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
