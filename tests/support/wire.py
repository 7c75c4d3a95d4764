"""Bytes sent to a server and read from it, with no client's library in between."""

from __future__ import annotations

import socket


def connect(port, sent=b""):
    """Return a connection to a port of loopback, by which these bytes were sent."""
    one = socket.create_connection(("127.0.0.1", port), timeout=20)
    one.sendall(sent)
    return one


def rest_of(one):
    """Return what comes until the other side closes."""
    parts = []
    try:
        while part := one.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
