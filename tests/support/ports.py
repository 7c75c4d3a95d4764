"""Ports for the tests' servers, which are still free when a server starts again.

The kernel gives its own ports (32768 and up) to any connection, a neighbour's too. These are
below, and each xdist process has a thousand for itself.
"""

from __future__ import annotations

import os
import socket
from itertools import cycle

_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw19").removeprefix("gw")) % 20
_FIRST = 12_000 + 1000 * _PROCESS
# Another run of the suite on this machine begins elsewhere.
_START = _FIRST + os.getpid() % 1000
_ports = cycle([*range(_START, _FIRST + 1000), *range(_FIRST, _START)])


def free_port() -> int:
    """Return a port of loopback that nobody listens on, another one each time."""
    for _ in range(1000):
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
