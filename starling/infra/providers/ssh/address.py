"""Where the other hosts reach a host."""

from __future__ import annotations

import socket

from starling.infra.providers.ssh.hosts import Target


def address_for_peers(target: Target) -> str:
    """The host's private address if the spec gives one, else what we reach it by, as a number where that can be had:
    to itself a host's own name often means its loopback interface."""
    if target.host.private_address is not None:
        return target.host.private_address
    if target.proxy is not None:
        return target.hostname  # a name that perhaps only the network behind the proxy knows
    try:
        return socket.gethostbyname(target.hostname)
    except OSError:
        return target.hostname
