"""Servers that are out of memory, of each kind at hand; ``tests/conftest.py`` has others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from redis import Redis

from celery_concurrency.testing import server as testing_server
from celery_concurrency.testing.server import Server

#: They differ: only Redis refuses, out of memory, whatever is queued in a transaction.
PROGRAMS = list(
    dict.fromkeys(
        path for path in (testing_server.find_server(), shutil.which("redis-server")) if path
    )
)


def server_of(program: str) -> Server:
    """Return a running server of this program."""
    with patch.object(testing_server, "find_server", lambda: program):
        return Server()


@contextmanager
def out_of_memory(redis: Redis) -> Iterator[None]:
    """Let a server be at its maxmemory, with nothing to evict, while a block runs."""
    redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)
