"""Callers that hold a limit of a Redis Cluster by turns, and what they leave there."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from redis import Redis

from celery_concurrency.errors import LimiterUnavailable, LimitReached
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Granted
from tests.support.clusters import Cluster
from tests.support.workers import settle, wait_for

KEY = "{concurrency}"
#: Seconds of a turn.
TURN = 0.002


def direct(nodes: Cluster) -> Redis:
    """Return a plain client of the node that has the keys now."""
    return Redis(port=nodes.master_of(KEY).port, decode_responses=True)


def settle_at(nodes: Cluster) -> None:
    """Let the emptied node that has the keys be one that has been in use."""
    with direct(nodes) as client:
        settle(client, KEY)


class Holders:
    """Threads that hold one limit by turns, and record how many do at once.

    Attributes:
        most: how many have held it at once.
        turns: how often it was held.
        errors: what went wrong.
    """

    def __init__(self, url: str, most: int) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self._stop = threading.Event()
        self.most = 0
        self.turns = 0
        self.errors: list[Exception] = []
        self._client = connect(url)
        self.limiter = Limiter(self._client)
        self.limiter.config.update({"platform_max": {"p": most}})
        self._threads = [threading.Thread(target=one) for one in self._takers()]

    def __enter__(self) -> Holders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        wait_for(self._is_free, what="all tokens back")
        self._client.close()

    def _takers(self) -> list[Callable[[], object]]:
        return [partial(self._by_turns, one) for one in [self._acquire] * 3 + [self._try] * 3]

    def _is_free(self) -> bool:
        self.limiter.waiting_room.sweep()
        keys = self.limiter.keyspace.keys
        left = (keys.semaphore("platform:p"), keys.leases, keys.groups, f"{KEY}:reservations")
        return not self._client.exists(*left)

    def _by_turns(self, take: Callable[[str], object]) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            with self._taking():
                take(f"{threading.get_ident()}:{number}")

    @contextmanager
    def _taking(self) -> Iterator[None]:
        try:
            yield
        except (LimiterUnavailable, LimitReached):
            pass  # it holds nothing
        except Exception as exc:
            self.errors.append(exc)
            raise

    def _acquire(self, name: str) -> None:
        with self.limiter.acquire(platform="p", timeout=5), self._holding():
            time.sleep(TURN)

    def _try(self, name: str) -> None:
        if isinstance(self.limiter.try_acquire(name, {"platform": "p"}, lease=60), Granted):
            try:
                with self._holding():
                    time.sleep(TURN)
            finally:
                self._let_go(name)

    def _let_go(self, name: str) -> None:
        try:
            self.limiter.release(name)
        except LimiterUnavailable:
            self.limiter.give_up(name)

    @contextmanager
    def _holding(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.turns += 1
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def wait_for_turns(self, count: int) -> None:
        """Wait until so many more have held it."""
        wanted = self.turns + count
        wait_for(lambda: self.turns >= wanted, what=f"{count} more turns")

    def hold_while_it_moves(self, home: Cluster, refused: list[Exception]) -> None:
        """Go on while the slot fails over, and moves away and back.

        Args:
            refused: gets what nodes refuse because they don't serve the slot.
        """
        self.wait_for_turns(20)
        home.fail_over(KEY)
        self.wait_for_turns(20)
        source = home.master_of(KEY)
        for target in (home.others(source)[0], source):
            with home.migrating(KEY, target):
                refused.clear()
                wait_for(lambda: len(refused) > 10, what="calls are refused")
            self.wait_for_turns(20)


class LoopHolders(Holders):
    """Tasks of an event loop, some of which are cancelled at any moment, and a thread."""

    def _takers(self) -> list[Callable[[], object]]:
        return [lambda: asyncio.run(self._loop()), partial(self._by_turns, self._acquire)]

    async def _loop(self) -> None:
        await asyncio.gather(*(self._await_turns(impatient=number % 3 == 0) for number in range(9)))

    async def _await_turns(self, *, impatient: bool) -> None:
        chance = random.Random(7)
        while not self._stop.is_set():
            with self._taking():
                try:
                    async with asyncio.timeout(chance.random() / 10 if impatient else None):
                        await self._await_turn()
                except TimeoutError:
                    pass  # a cancellation: it holds nothing

    async def _await_turn(self) -> None:
        async with self.limiter.acquire(platform="p", timeout=5):
            with self._holding():
                await asyncio.sleep(TURN)
