"""Patience for a slow machine, which may also stand still for some seconds at any moment.

``tests/limiter/conftest.py`` and ``tests/worker/conftest.py`` have its fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from celery_concurrency.limiter import caller, waiting_room
from celery_concurrency.limiter.client import AsyncClient, Client

#: Seconds; far more than a machine stands still.
LONG = 60


@pytest.fixture(scope="module", autouse=True)
def patient_clients() -> Iterator[None]:
    """Let clients that are made meanwhile wait long for an answer.

    By themselves they wait two seconds, and a call is lost that is under way while the machine
    stands still. A time-out in a URL counts all the same.
    """
    with ExitStack() as stack:
        for ours, theirs in ((Client, Redis), (AsyncClient, AsyncRedis)):
            stack.enter_context(patch.object(ours, "from_url", _patient(theirs)))
        yield


def _patient(theirs: Any) -> Any:
    def from_url(cls: Any, url: str, **options: Any) -> Any:
        options |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), LONG)
        return theirs.from_url.__func__(cls, url, **options)

    return classmethod(from_url)


@pytest.fixture(autouse=True)
def whole_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call of the waiting room do all there is to do, and reservations last long.

    By themselves calls leave the rest to others after parts of a second, and what is reserved for
    a caller lapses after some seconds.
    """
    for name in ("RELEASE_SECONDS", "SWEEP_SECONDS", "CHANGE_SECONDS", "MOMENT_SECONDS"):
        monkeypatch.setattr(waiting_room, name, LONG)
    monkeypatch.setattr(caller, "HOLD_SECONDS", float(LONG))


@contextmanager
def impatient(client: Client, seconds: float) -> Iterator[None]:
    """Let a client wait no longer than this for an answer, also where it is connected already."""
    options: dict[str, Any] = client.connection_pool.connection_kwargs
    idle = [one for one, _ in client._idle]
    with patch.dict(options, socket_timeout=seconds):
        for one in idle:
            one._sock.settimeout(seconds)
        try:
            yield
        finally:
            # One that is connected still goes on as all others.
            for one in idle:
                if one._sock:
                    one._sock.settimeout(LONG)
