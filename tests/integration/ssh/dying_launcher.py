"""Launches a node, and dies (as by kill -9) at a named moment of its n-th command to the host: before it is sent, once
it is sent, or after its answer. `dying_launcher.py MOMENT-N NAME PORT KEY KNOWN_HOSTS STORE`, the intent on stdin."""

from __future__ import annotations

import os
import sys
from typing import Any

from starling.infra.providers.ssh import connection
from starling.infra.providers.ssh.hosts import Host, SshChoice
from starling.infra.providers.ssh.provider import SshProvider
from starling.infra.records import NodeIntent


def main() -> None:
    death, _, port, key, known_hosts, store = sys.argv[1:]
    moment, _, call = death.partition("-")
    converse, calls = connection._converse, 0

    def dying(channel: Any, data: bytes, deadline: float) -> connection.Ran:
        nonlocal calls
        calls += 1
        now = moment if calls == int(call) else None
        if now == "before":
            os._exit(9)
        if now == "sent":
            channel.sendall(data)
            channel.shutdown_write()
            os._exit(9)
        ran = converse(channel, data, deadline)
        if now == "after":
            os._exit(9)
        return ran

    connection._converse = dying
    host = Host(address="127.0.0.1", port=int(port), key=key, python=sys.executable)
    provider = SshProvider(SshChoice(hosts=(host,), known_hosts=known_hosts), agent_options=OPTIONS)
    provider.launch(NodeIntent.from_bytes(sys.stdin.buffer.read()), store)


OPTIONS = ("--supervisor-module", "stand_in_supervisor")

if __name__ == "__main__":
    main()
