"""`python -m tests.support.pipe HOST PORT`: a ProxyCommand, which passes bytes on to a socket and back."""

from __future__ import annotations

import os
import socket
import sys
import threading


def main() -> None:
    line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    threading.Thread(target=_outwards, args=(line,), daemon=True).start()
    while data := os.read(0, 1 << 15):
        line.sendall(data)


def _outwards(line: socket.socket) -> None:
    while data := line.recv(1 << 15):
        os.write(1, data)
    os._exit(0)


if __name__ == "__main__":
    main()
