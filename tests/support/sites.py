"""A project, its workers and an empty server, shared by all tests of a module.

A worker takes seconds to start. Tests that share one keep out of each other's
way by accounts of their own.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from celery.result import AsyncResult
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Granted
from celery_concurrency.testing.server import Server
from tests.support.waiting import waiters
from tests.support.workers import Worker, kill_all, settle, wait_for

#: Where tasks write down that their body ran, apart from what is flushed or broken.
RAN = "ran"

#: With which variables a project was imported here.
_imported: dict[str, dict[str, str]] = {}


@dataclass
class Site:
    """What a test sees of it.

    Attributes:
        url: of the limiter's server.
        tasks: the project's module, imported for sending.
        redis: a client for looking at keys.
        limiter: a limiter like that of the workers.
        workers: by the order of their starts.
        spawned: their pool children are no forks of them.
    """

    url: str
    project: str
    tasks: ModuleType
    redis: Redis
    limiter: Limiter
    directory: Path
    workers: list[Worker] = field(default_factory=list)
    spawned: bool = False

    def start(self, env: dict[str, str] | None = None, **options: Any) -> Worker:
        """Start one more worker and wait until it takes tasks.

        Args:
            env: variables for it alone.
            options: as for ``Worker``.
        """
        log = self.directory / f"worker{len(self.workers)}.log"
        with patch.dict(os.environ, env or {}):
            worker = Worker(self.project, log, **options)
        self.workers.append(worker)
        worker.wait_until_ready()
        return worker

    @contextmanager
    def held(self, **tags: object) -> Iterator[str]:
        """Hold what these tags need, as a running task would."""
        token = f"test:{os.urandom(4).hex()}"
        wait_for(lambda: isinstance(self.limiter.try_acquire(token, tags), Granted))
        try:
            yield token
        finally:
            self.limiter.release(token)

    def output(self) -> str:
        return "".join(worker.output() for worker in self.workers)

    def waits(self, result: AsyncResult) -> int:
        """Return how often this task was told to wait."""
        return self.output().count(f"[{result.id}] waits ")

    def wait_until_waiting(self, *results: AsyncResult, times: int = 1) -> None:
        """Wait until each of these was told to wait, and its result says so.

        Args:
            times: how often, where it asks again and again. By hand-off it asks once.
        """
        if os.environ.get("WAITING", "retry") != "retry":
            times = 1
        for result in results:
            wait_for(
                lambda result=result: self.waits(result) >= times and result.state == "RETRY",
                what=f"{result.id} waits",
            )

    def waiting(self) -> set[str]:
        """Return the names of those who wait in the waiting room."""
        return waiters(self.redis)

    def wait_until_parked(self, *results: AsyncResult) -> None:
        """Wait until the messages of all of these are in the waiting room."""
        ids = {result.id for result in results}
        wait_for(lambda: ids <= self.waiting(), what=f"{len(ids)} parked")

    def ran(self) -> list[str]:
        """Return what the bodies wrote down with ``note``."""
        return self.redis.lrange(RAN, 0, -1)

    def semaphores(self) -> dict[str, list[str]]:
        """Return who holds what, by limit."""
        start = "concurrency:semaphore:"
        keys = [key for key in self.redis.keys(f"{start}*") if self.redis.type(key) == "zset"]
        return {key.removeprefix(start): self.redis.zrange(key, 0, -1) for key in sorted(keys)}

    def wait_until_free(self) -> None:
        """Wait until nobody holds a token."""
        wait_for(lambda: not self.semaphores(), what="all tokens back")

    def wait_until_outlived(self, seconds: float, *accounts: str) -> None:
        """Wait until the run of each account has held its token for longer than a lease lasts."""

        def leases() -> list[float]:
            return [self.redis.zscore("concurrency:leases", token) or 0 for token in tokens]

        def outlived() -> bool:
            # One that is late is renewed all the same, where only its own worker looks for those.
            assert all(leases()), "a token was taken back"
            return min(leases()) > ends

        tokens = [self.semaphores()[f"account:{account}"][0] for account in accounts]
        ends = max(leases()) + seconds
        wait_for(outlived)


def note(what: str) -> None:
    """Write down, in a running task, that its body ran."""
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        client.rpush(RAN, what)


@contextmanager
def site(
    server: Server, directory: Path, project: str, *, db: int = 0, **env: str
) -> Iterator[Site]:
    """Set a project up on an emptied database; end its workers at the end.

    Args:
        server: the tests' server.
        directory: for the workers' logs.
        project: a module in ``tests.projects``.
        db: the database, another one beside a site that is still there.
        env: more variables, for the project here and in its workers.
    """
    url = server.url(db)
    client = Redis.from_url(url, decode_responses=True)
    client.flushdb()
    settle(client)
    connection = connect(url)
    name = f"tests.projects.{project}"
    variables = {"BROKER_URL": url, "RESULT_BACKEND": url, "RECORDS_URL": url, **env}
    with patch.dict(os.environ, variables):
        # Imported again without need, shared tasks would belong to the app twice.
        if _imported.get(name) != variables:
            sys.modules.pop(name, None)
            _imported[name] = variables
        one = Site(url, name, importlib.import_module(name), client, Limiter(connection), directory)
        try:
            yield one
        finally:
            kill_all(one.workers)
            # Results that a failed test left behind don't look for a server that is gone.
            one.tasks.app.backend.on_result_fulfilled = lambda result: None
            connection.close()
            client.close()
