"""Which network interface nodes talk through. Runs on Python 3.8, with nothing but the standard library."""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

_SIOCGIFADDR = 0x8915


def talking_interface(address: str, routes: Path = Path("/proc/net/route")) -> str | None:
    """The interface that has this node's address, by which peers know it, else the default route's; None: unknown."""
    if address.startswith("127."):
        return "lo"
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if _address(name) == address), None) or default_route(routes.read_text())


def default_route(table: str) -> str | None:
    """The interface of the default route with the least metric, from the text of /proc/net/route."""
    rows = [line.split() for line in table.splitlines()[1:]]
    defaults = [(int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == "00000000" == row[7]]
    return min(defaults)[1] if defaults else None


def _address(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None  # it is down, or has no IPv4 address
    return socket.inet_ntoa(answer[20:24])
