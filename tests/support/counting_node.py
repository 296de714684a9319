"""A node without training: the real rendezvous, and a worker that counts in step with its peers.

Its peers hold a connection to rank 0, as training processes do, and so know at once when somebody is gone.
"""

from __future__ import annotations

import selectors
import socket
import time
from pathlib import Path

# Before our own: torch loads its rendezvous plugins, ours among them, while it is imported.
from torch.distributed.elastic.rendezvous import RendezvousClosedError

from starling.infra.processes import die_with_parent
from starling.infra.store import open_store
from starling.trainer.rendezvous import Settings, StoreRendezvous

TICK = 0.05
"""Seconds between two counts."""


class PeerLost(Exception):
    """The round is over."""


def serve(store_uri: str, folder: str, number: int, nodes: int) -> None:
    """Form rounds and count in them until told to finish, by a file."""
    die_with_parent()
    settings = Settings(least=2, most=nodes, window=20.0)
    rendezvous = StoreRendezvous(open_store(store_uri), "rendezvous/r", "r", "127.0.0.1", settings, label=str(number))
    try:
        while not _count(rendezvous, Path(folder), number):
            pass
        rendezvous.set_closed()
    except RendezvousClosedError:
        pass  # somebody else has finished
    rendezvous.leave()


def _count(rendezvous: StoreRendezvous, folder: Path, number: int) -> bool:
    """One round; whether all is done."""
    info = rendezvous.next_rendezvous()
    leader = rendezvous.members[0]
    try:
        if info.rank == 0:
            links = _gathered(leader.address, leader.master_port, info.world_size - 1)
        else:
            links = [_joined(leader.address, leader.master_port, rendezvous)]
        return _in_step(links, rendezvous, folder, number, info.rank, info.world_size)
    except (OSError, PeerLost):
        return False


def _gathered(address: str, port: int, count: int) -> list[socket.socket]:
    with socket.create_server((address, port), backlog=256) as server:
        server.settimeout(10)
        return [server.accept()[0] for _ in range(count)]


def _joined(address: str, port: int, rendezvous: StoreRendezvous) -> socket.socket:
    while True:
        try:
            return socket.create_connection((address, port), timeout=10)
        except ConnectionRefusedError as error:
            if rendezvous.round_is_over() or rendezvous.lost_members():
                raise PeerLost from error
            time.sleep(0.02)


def _in_step(
    links: list[socket.socket], rendezvous: StoreRendezvous, folder: Path, number: int, rank: int, world: int
) -> bool:
    """Rank 0 says when all count on, drain for a newcomer (as at a step boundary), or finish."""
    note = folder / f"node-{number}"
    count = 0
    try:
        while True:
            word = _word(rendezvous, folder) if rank == 0 else links[0].recv(1)
            if rank == 0:
                time.sleep(TICK)
                _expect_silence(links)
                for link in links:
                    link.sendall(word)
            if word != b"+":
                if not word:
                    raise PeerLost
                return word == b"!"
            count += 1
            note.write_text(f"{world} {rank} {count}\n")
    finally:
        for link in links:
            link.close()


def _word(rendezvous: StoreRendezvous, folder: Path) -> bytes:
    if (folder / "finish").exists():
        return b"!"
    return b"." if rendezvous.num_nodes_waiting() > 0 else b"+"


def _expect_silence(links: list[socket.socket]) -> None:
    """Peers never speak: one whose link can be read has closed it."""
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link, selectors.EVENT_READ)
        if selector.select(0):
            raise PeerLost
