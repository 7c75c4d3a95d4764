"""A RabbitMQ that may be there, for the tests of other brokers than Redis."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from celery_concurrency.testing.server import Server
from tests.support.sites import Site, site

URL = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")


def require_rabbitmq() -> str:
    """Return the URL of RabbitMQ; skip the test where none answers.

    With REQUIRE_RABBITMQ=1 in the environment that is a failure instead.
    """
    try:
        with Connection(URL, connect_timeout=3) as connection:
            connection.connect()
    except OSError as exc:
        problem = f"no RabbitMQ at {Connection(URL).as_uri()}: {exc}"
        if os.environ.get("REQUIRE_RABBITMQ") == "1":
            pytest.fail(problem)
        pytest.skip(problem)
    return URL


def unique(name: str) -> str:
    """Return a name that no other run of the tests uses."""
    return f"test-{name}-{uuid.uuid4().hex[:8]}"


def delete(queues: list[str], exchanges: list[str]) -> None:
    """Take away what a test has made; what is not there is no matter."""
    with Connection(URL) as connection:
        channel: Any = connection.channel()
        for queue in queues:
            channel.queue_delete(queue)
        for exchange in exchanges:
            channel.exchange_delete(exchange)


@contextmanager
def rabbit_site(
    server: Server, directory: Path, waiting: str, *, db: int = 0, **env: str
) -> Iterator[Site]:
    """Set the project ``rabbit`` up, with a queue of its own; see ``site``.

    Args:
        server, directory, db, env: as of that.
        waiting: its ``concurrency_waiting``.
    """
    url, name = require_rabbitmq(), unique("handoff")
    env = {
        "BROKER_URL": url, "QUEUE": name, "QUORUM": "", "COUNTDOWN": "600", "WAITING": waiting,
        **env,
    }  # fmt: skip
    try:
        with site(server, directory, "rabbit", db=db, **env) as one:
            yield one
    finally:
        delete([name], [name])
