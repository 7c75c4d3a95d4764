"""``async with limiter.acquire(...)`` on a Redis Cluster that fails over, and whose slot moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter, async_cluster, caller, cluster, event_loop
from celery_concurrency.limiter.connection import connect
from tests.limiter.test_async_acquire import enter, silent
from tests.limiter.test_async_acquire import until as until_soon
from tests.support.clusters import Cluster
from tests.support.holders import KEY, LoopHolders, direct

ACCOUNT = f"{KEY}:semaphore:account:a"
LEASES = f"{KEY}:leases"
NOTHING_LEFT = (ACCOUNT, LEASES, f"{KEY}:groups", f"{KEY}:reservations")
until = partial(until_soon, seconds=60)


@pytest.fixture
def limiter(home: Cluster) -> Iterator[Limiter]:
    with connect(home.url) as client:
        limiter = Limiter(client)
        limiter.config.sync()
        yield limiter


def keys(home: Cluster, *names: str) -> int:
    """Return how many of these keys there are."""
    with direct(home) as client:
        return int(client.exists(*names))


def waiting(home: Cluster) -> int:
    """Return how many wait for the account."""
    with direct(home) as client:
        return int(client.zcard(f'{KEY}:group:["global", "account:a"]'))


def reads(home: Cluster) -> bool:
    """Return whether the task that reads waits at the node that has the keys now."""
    with direct(home) as client:
        return any("b" in one["flags"] for one in client.client_list())


def move(home: Cluster) -> None:
    """Move the slot to another master."""
    with home.migrating(KEY, home.others(home.master_of(KEY))[0]):
        pass


def test_never_more_hold_a_limit_while_its_slot_moves_and_fails_over(
    home: Cluster, refused: list[Exception]
) -> None:
    with LoopHolders(home.url, most=2) as holders:
        holders.hold_while_it_moves(home, refused)
    assert holders.errors == []
    assert holders.most == 2


@pytest.mark.parametrize("change", [lambda home: home.fail_over(KEY), move], ids=["fails", "moves"])
def test_who_waits_is_woken_by_a_release_at_the_new_master(
    home: Cluster, limiter: Limiter, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    """And not because it asks again: one look takes longer than this test."""
    # Nor do they give up, however long the change takes.
    monkeypatch.setattr(async_cluster, "SERVED_SECONDS", 60)
    monkeypatch.setattr(cluster, "ASK_SECONDS", 60)
    monkeypatch.setattr(caller, "LOOK_SECONDS", 300)
    monkeypatch.setattr(event_loop, "look", partial(caller.look, seconds=300))
    order: list[str] = []

    async def main() -> None:
        held = limiter.acquire(account="a")
        await held.__aenter__()
        tasks = [asyncio.create_task(enter(patient, order, str(number))) for number in range(3)]
        await until(lambda: waiting(home) == 3 and reads(home))
        await asyncio.to_thread(change, home)
        await until(lambda: reads(home))
        assert order == []
        await held.__aexit__(None, None, None)
        await asyncio.gather(*tasks)

    with connect(f"{home.url}?socket_timeout=300") as client:
        patient = Limiter(client)
        asyncio.run(main())
    assert len(order) == 3
    assert not keys(home, *NOTHING_LEFT)


def test_what_is_held_is_renewed_at_the_replica_of_a_master_that_died(
    home: Cluster, limiter: Limiter
) -> None:
    """Who waits is told that a message may be lost, and gets what is released if it asks again."""
    order: list[str] = []

    async def persist() -> None:
        while not order:
            with suppress(LimiterUnavailable):
                await enter(limiter, order, "once")

    async def main() -> None:
        async with limiter.acquire(account="a") as lease:
            task = asyncio.create_task(persist())
            await until(lambda: waiting(home) == 1 and reads(home))
            await asyncio.to_thread(home.kill, KEY)
            # The loop has to go through it, too.
            await asyncio.to_thread(home.master_of, KEY)
            with direct(home) as client:
                assert client.zrange(ACCOUNT, 0, -1) == [lease.token]
                soon = client.time()[0] + 20
                client.zadd(LEASES, {lease.token: soon})
                await until(lambda: client.zscore(LEASES, lease.token) > soon)
            await until(lambda: waiting(home) == 1 and reads(home))
            assert await lease.lost is False
            assert order == []
        await task
        await until(lambda: not keys(home, *NOTHING_LEFT))

    asyncio.run(main())
    assert order == ["once"]


def test_nothing_is_done_while_the_slot_moves(
    home: Cluster, limiter: Limiter, refused: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def main() -> None:
        async with limiter.acquire(account="a") as lease:
            here = limiter._async._loops[asyncio.get_running_loop()]
            source = home.master_of(KEY)
            target = home.others(source)[0]
            # Not before: it may have to look for a master that is new since the test before.
            monkeypatch.setattr(async_cluster, "SERVED_SECONDS", 0.1)
            with home.migrating(KEY, target) as names:
                for call in (
                    lambda: enter(limiter, order, "never", account="b"),
                    lambda: here.run(limiter.keyspace.telling_time()),
                    lambda: here._answer(event_loop.Pop(f"{KEY}:call:1", 1)),
                ):
                    refused.clear()
                    with pytest.raises(LimiterUnavailable, match="the slot is being moved"):
                        await call()
                    assert refused
                # A key may have expired.
                assert source.ask("DBSIZE") + target.ask("DBSIZE") <= len(names)
                monkeypatch.setattr(async_cluster, "SERVED_SECONDS", 60)
                waits = asyncio.create_task(enter(limiter, order, "later", account="b"))
                leaves = asyncio.create_task(enter(limiter, order, "never", account="c"))
                refused.clear()
                await until(lambda: len(refused) > 3)  # they are tried again
                leaves.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await leaves
            await waits
            assert await lease.lost is False
        await until(lambda: not keys(home, *NOTHING_LEFT))

    asyncio.run(main())
    assert order == ["later"]


def test_connections_are_closed_when_nobody_has_called_for_a_while(
    home: Cluster, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those by which it asked who has the keys, and that of a former master."""
    monkeypatch.setattr(event_loop, "IDLE_SECONDS", 0.1)

    def connections() -> set[tuple[int, bytes]]:
        return {
            (node.port, one.split()[0])
            for node in home.nodes
            for one in node.ask("CLIENT", "LIST", "TYPE", "NORMAL").splitlines()
            if b" cmd=client|list" not in one
        }

    async def main() -> None:
        async with limiter.acquire(account="a"):
            tasks = [asyncio.create_task(enter(limiter, [], str(number))) for number in range(5)]
            await until(lambda: waiting(home) == 5)
            assert connections() - before
            home.fail_over(KEY)
        await asyncio.gather(*tasks)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        await until(lambda: connections() <= before)

    before = connections()
    asyncio.run(main())


def test_loops_end_without_a_warning(home: Cluster) -> None:
    silent(home.url)
