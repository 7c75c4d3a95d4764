"""``async with limiter.acquire(...)``: in one order with tasks and callers that block."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from celery_concurrency.errors import (
    ImproperlyConfigured,
    InvalidCooldown,
    InvalidTag,
    LimiterUnavailable,
    LimitReached,
    TooManyWaiting,
    WaitedTooLong,
    WeightTooHigh,
)
from celery_concurrency.limiter import Limiter, async_acquire, caller, event_loop
from celery_concurrency.limiter.async_acquire import AsyncLease
from celery_concurrency.limiter.client import AsyncClient
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.scripts import _sha
from celery_concurrency.testing.server import Server
from tests.limiter.test_blocking_acquire import waiting
from tests.limiter.test_bounds import grow_older
from tests.support.proxies import Proxy

ACCOUNT = "concurrency:semaphore:account:a"
NOTHING_LEFT = (ACCOUNT, "concurrency:groups", "concurrency:reservations", "concurrency:leases")


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition, and let the event loop's other tasks run."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


async def enter(limiter: Limiter, order: list[str], name: str, **asked: Any) -> None:
    async with limiter.acquire(**{"account": "a", **asked}):
        order.append(name)


def test_the_block_holds_what_its_tags_need_and_no_thread_is_there(
    limiter: Limiter, redis: Redis
) -> None:
    async def main() -> None:
        async with limiter.acquire(account="a", platform="douyin") as lease:
            assert redis.zrange(ACCOUNT, 0, -1) == [lease.token]
            assert lease.limits == ("global", "platform:douyin", "account:a")
            assert await lease.lost is False
            assert lease.fence > 1_700_000_000_000_000
            assert repr(lease).startswith("AsyncLease(token='call-")
        assert not redis.exists(*NOTHING_LEFT)
        assert await lease.lost is True

    before = set(threading.enumerate())
    # The first call of all may have found no configuration, which is made in a thread.
    limiter.config.sync()
    asyncio.run(main())
    assert set(threading.enumerate()) <= before


def test_the_first_call_of_all_makes_the_configuration(server: Server, redis: Redis) -> None:
    async def main() -> None:
        async with limiter.acquire(account="a", tenant="t"):
            assert redis.exists("concurrency:config")

    with connect(server.url()) as client:
        limiter = Limiter(client, default_config={"dimensions": {"tenant": {"max": 1}}})
        asyncio.run(main())


def test_a_block_that_fails_gives_its_tokens_back(limiter: Limiter, redis: Redis) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with limiter.acquire(account="a"):
                raise ZeroDivisionError
        assert not redis.exists(*NOTHING_LEFT)

    asyncio.run(main())


def test_those_who_await_and_those_who_block_wait_in_one_order(
    limiter: Limiter, redis: Redis
) -> None:
    order: list[str] = []

    def block(name: str) -> None:
        with limiter.acquire(account="a"):
            order.append(name)

    async def main() -> None:
        held = limiter.acquire(account="a")
        async with held:
            started: list[Awaitable[Any]] = []
            for number in range(6):
                if number % 2:
                    started.append(asyncio.create_task(asyncio.to_thread(block, str(number))))
                else:
                    started.append(asyncio.create_task(enter(limiter, order, str(number))))
                await until(lambda number=number: waiting(redis) == number + 1)
            assert order == []
        await asyncio.gather(*started)

    asyncio.run(main())
    assert order == ["0", "1", "2", "3", "4", "5"]
    assert not redis.exists(*NOTHING_LEFT)


def test_a_hundred_wait_on_one_connection_and_are_woken_at_once(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ask Redis no more often than one does."""
    order: list[str] = []
    before = len(redis.client_list())

    def calls(command: str) -> int:
        return int(redis.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

    looks: list[str] = []

    def look_long(room: WaitingRoom, queue: str) -> Any:
        looks.append(queue)
        return caller.look(room, queue, 55)

    async def main() -> None:
        async with limiter.acquire(account="a"):
            tasks = [asyncio.create_task(enter(limiter, order, str(n))) for n in range(100)]
            await until(lambda: waiting(redis) == 100)
            redis.config_resetstat()
            started = time.monotonic()
            await until(lambda: calls("blpop") >= 3)
            # A look is a BLPOP and what sweeps; a beat renews what is held here.
            assert calls("blpop") <= (time.monotonic() - started) + 2
            assert calls("evalsha") <= 2 * (time.monotonic() - started) + 4
            blocked = [one for one in redis.client_list() if one["cmd"] == "blpop"]
            assert len(blocked) <= 1
            # Theirs, and some of the threads that read the configuration.
            assert len(redis.client_list()) < before + event_loop.CALLS + 10
            # Who is not woken looks again after most of a minute.
            monkeypatch.setattr(caller, "LOOK_SECONDS", 55)
            monkeypatch.setattr(event_loop, "look", look_long)
            await until(lambda: looks)
            released = time.monotonic()
        await until(lambda: order)
        assert time.monotonic() - released < 30
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert len(set(order)) == 100


def test_a_thousand_over_ten_accounts_never_exceed_their_limits(
    limiter: Limiter, redis: Redis
) -> None:
    limiter.config.update({"account_max": 2, "global_max": 0})
    running: Counter[str] = Counter()
    highest: Counter[str] = Counter()

    async def work(number: int) -> None:
        account = f"a{number % 10}"
        async with limiter.acquire(account=account):
            running[account] += 1
            highest[account] = max(highest[account], running[account])
            assert redis.zcard(f"concurrency:semaphore:account:{account}") <= 2
            await asyncio.sleep(0)
            running[account] -= 1

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(1000)))

    asyncio.run(main())
    assert len(highest) == 10
    assert max(highest.values()) == 2
    assert not redis.exists(*NOTHING_LEFT)


# -- what is given back


@pytest.mark.parametrize("handed_over", [False, True])
def test_one_that_is_cancelled_while_it_waits_leaves_nothing(
    limiter: Limiter, redis: Redis, handed_over: bool
) -> None:
    """Neither a place among those who wait, nor what was handed over to it just now."""

    async def main() -> None:
        async with limiter.acquire(account="a") as held:
            task = asyncio.create_task(enter(limiter, [], "never"))
            await until(lambda: waiting(redis) == 1)
            if handed_over:
                limiter.release(held.token)
                assert redis.exists("concurrency:reservations")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not redis.exists("concurrency:groups", "concurrency:reservations")
            assert redis.zcard(ACCOUNT) == (not handed_over)

    asyncio.run(main())
    assert not redis.exists(*NOTHING_LEFT)


def held_up(
    monkeypatch: pytest.MonkeyPatch, verb: str, *, before: bool, times: int = 1
) -> tuple[asyncio.Event, list[tuple[Any, ...]]]:
    """Hold up the next calls of a verb before or after Redis executes them.

    Returns:
        a sign that one is held up, and those that are.
    """
    reached = asyncio.Event()
    original = AsyncClient.evalsha
    left, late = [times], []

    async def evalsha(self: AsyncClient, sha: str, *args: Any) -> Any:
        if sha != _sha(verb) or not left[0]:
            return await original(self, sha, *args)
        left[0] -= 1
        late.append((sha, *args))
        reply = None if before else await original(self, sha, *args)
        reached.set()
        await asyncio.Event().wait()
        return reply

    monkeypatch.setattr(AsyncClient, "evalsha", evalsha)
    return reached, late


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("verb", ["acquire", "park", "release"])
def test_one_that_is_cancelled_between_a_call_and_its_reply_leaves_nothing(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch, verb: str, before: bool
) -> None:
    async def main() -> None:
        reached, late = held_up(monkeypatch, verb, before=before)
        if verb == "park":
            limiter.try_acquire("t:1", {"account": "a"})
        task = asyncio.create_task(enter(limiter, [], "once"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if verb != "park":
            await until(lambda: not redis.exists(*NOTHING_LEFT))
        # It may be on its way for long.
        for call in late:
            limiter.redis.evalsha(*call)
        assert waiting(redis) == 0
        limiter.release("t:1")
        assert not redis.exists(*NOTHING_LEFT)
        # And the next one finds room.
        async with limiter.acquire(account="a", timeout=0):
            pass

    asyncio.run(main())


def test_one_that_is_cancelled_again_while_it_leaves_leaves_all_the_same(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        reached, _ = held_up(monkeypatch, "cancel", before=True)
        async with limiter.acquire(account="a"):
            task = asyncio.create_task(enter(limiter, [], "never"))
            await until(lambda: waiting(redis) == 1)
            task.cancel()
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: waiting(redis) == 0)

    asyncio.run(main())


def test_one_that_is_cancelled_while_it_asks_again_gives_up_what_was_handed_over(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with limiter.acquire(account="a"):
            task = asyncio.create_task(enter(limiter, [], "never"))
            await until(lambda: waiting(redis) == 1)
            reached, _ = held_up(monkeypatch, "acquire", before=True)
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not redis.exists("concurrency:reservations", ACCOUNT)

    asyncio.run(main())


def test_a_cancellation_is_never_lost(limiter: Limiter, redis: Redis) -> None:
    """Wherever it strikes: before Python 3.12 redis-py loses some of them while it sends."""

    async def hold() -> None:
        async with limiter.acquire(account="a"):
            await asyncio.Event().wait()

    async def main() -> None:
        for passes in range(120):
            task = asyncio.create_task(hold())
            for _ in range(passes % 40):
                await asyncio.sleep(0)
            task.cancel()
            async with asyncio.timeout(60):
                with pytest.raises(asyncio.CancelledError):
                    await task
        await until(lambda: not redis.exists(*NOTHING_LEFT))

    asyncio.run(main())


def test_a_timeout_of_asyncio_around_it_and_one_in_the_block(
    limiter: Limiter, redis: Redis
) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), limiter.acquire(account="a"):
                await asyncio.sleep(60)
        # It may have struck while a call was under way: then a thread gives up what it got.
        await until(lambda: not redis.exists(*NOTHING_LEFT))
        async with limiter.acquire(account="a"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), limiter.acquire(account="a"):
                    raise AssertionError("held by two")
            await until(lambda: waiting(redis) == 0)

    asyncio.run(main())


def test_a_loop_that_ends_gives_back_what_is_held_and_waited_for(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_loop, "IDLE_SECONDS", 120)

    async def hold(account: str) -> None:
        async with limiter.acquire(account=account):
            await asyncio.sleep(60)

    async def main() -> None:
        for _ in range(3):
            asyncio.create_task(hold("a"))  # noqa: RUF006 - the loop's end is what ends it
            asyncio.create_task(hold("b"))  # noqa: RUF006
        await until(lambda: waiting(redis) == 4)
        ended.append(time.monotonic())

    ended: list[float] = []
    asyncio.run(main())
    assert time.monotonic() - ended[0] < event_loop.IDLE_SECONDS / 2
    assert not redis.exists(*NOTHING_LEFT)


# -- errors


def test_what_is_refused_is_refused_as_to_those_who_block(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    original = event_loop.EventLoop._arrival

    async def arrival(self: Any, caller_id: str, seconds: float) -> Any:
        asked.append(seconds)
        return await original(self, caller_id, seconds)

    async def main() -> None:
        for tags, error in (
            ({"account": ""}, InvalidTag),
            ({"account": "a", "weight": 0}, InvalidTag),
            ({"platform": "p", "weight": 3}, WeightTooHigh),
        ):
            with pytest.raises(error):
                async with limiter.acquire(**tags):  # type: ignore[arg-type]
                    raise AssertionError("held")
        async with limiter.acquire(account="a") as lease:
            monkeypatch.setattr(event_loop.EventLoop, "_arrival", arrival)
            for timeout in (0, 0.1):
                with pytest.raises(LimitReached, match=r"account:a \(1 of 1\)"):
                    async with limiter.acquire(account="a", timeout=timeout):
                        raise AssertionError("held by two")
            assert all(seconds <= 0.1 for seconds in asked), "it would wait for longer"
            with pytest.raises(InvalidCooldown):
                await lease.refused("platform", 60)
            limiter.config.update({"waiting": {"account:*": {"most": 1, "seconds": 600}}})
            task = asyncio.create_task(enter(limiter, [], "never"))
            await until(lambda: waiting(redis) == 1)
            with pytest.raises(TooManyWaiting):
                async with limiter.acquire(account="a"):
                    raise AssertionError("held by two")
            grow_older(redis, 700)
            with pytest.raises(WaitedTooLong):
                await task
        assert not redis.exists(*NOTHING_LEFT)

    limiter.config.update({"platform_max": {"p": 2}})
    asyncio.run(main())


def test_a_client_that_has_none_for_an_event_loop_is_refused() -> None:
    async def main() -> None:
        async with Limiter(Redis.from_url("redis://h:1")).acquire(account="a"):
            raise AssertionError("held")

    with pytest.raises(ImproperlyConfigured, match=r"connect\(url\)"):
        asyncio.run(main())


def test_redis_goes_away_and_comes_back(
    server: Server, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits is told so; who holds goes on, and what it holds comes back when Redis does."""

    async def main() -> None:
        async with limiter.acquire(account="a"):
            tasks = [asyncio.create_task(enter(limiter, [], "never")) for _ in range(3)]
            await until(lambda: waiting(redis) == 3)
            proxy.close()
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(error, LimiterUnavailable)
            with pytest.raises(LimiterUnavailable):
                async with limiter.acquire(account="b"):
                    raise AssertionError("held")
        assert "tokens are released later" in caplog.text
        assert redis.exists(ACCOUNT)
        proxy.open()
        await until(lambda: not redis.exists(ACCOUNT))
        async with limiter.acquire(account="b", timeout=0) as lease:
            assert await lease.lost is False

    proxy = Proxy(server.port)
    with connect(f"redis://127.0.0.1:{proxy.port}/0") as client:
        limiter = Limiter(client)
        limiter.config.sync()
        asyncio.run(main())
    proxy.close()


def test_if_the_connection_of_the_task_that_reads_breaks_nobody_waits_in_vain(
    limiter: Limiter, redis: Redis
) -> None:
    """A message may be lost with it."""

    def readers() -> list[str]:
        return [one["id"] for one in redis.client_list() if one["cmd"] == "blpop"]

    async def main() -> None:
        async with limiter.acquire(account="a"):
            tasks = [asyncio.create_task(enter(limiter, [], "never")) for _ in range(5)]
            await until(lambda: waiting(redis) == 5 and readers())
            while not all(task.done() for task in tasks):
                # The one that was seen may read no more by now.
                for one in readers():
                    redis.client_kill_filter(_id=one)
                await asyncio.sleep(0.005)
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(error, LimiterUnavailable)
            assert waiting(redis) == 0
            later = asyncio.create_task(enter(limiter, order, "later"))
            await until(lambda: waiting(redis) == 1)
        await later

    order: list[str] = []
    asyncio.run(main())
    assert order == ["later"]
    assert not redis.exists(*NOTHING_LEFT)


def test_many_are_cancelled_at_any_moment_and_nothing_is_left(
    limiter: Limiter, redis: Redis
) -> None:
    limiter.config.update({"account_max": 2})
    chance = random.Random(7)
    running: Counter[str] = Counter()

    async def work(account: str) -> None:
        with suppress(LimitReached):
            async with limiter.acquire(account=account, timeout=chance.choice([None, 0.2])):
                running[account] += 1
                assert running[account] <= 2
                try:
                    await asyncio.sleep(chance.random() * 0.01)
                finally:
                    running[account] -= 1

    async def main() -> None:
        tasks = [asyncio.create_task(work(f"a{number % 3}")) for number in range(300)]
        for task in tasks[::2]:
            for _ in range(chance.choice([1, 1, 2])):
                asyncio.get_running_loop().call_later(chance.random() / 2, task.cancel)
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert error is None or isinstance(error, asyncio.CancelledError)
        await until(lambda: not redis.exists(*NOTHING_LEFT))

    asyncio.run(main())


# -- leases


def test_a_lease_is_renewed_while_its_block_runs(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (caller, event_loop, async_acquire):
        monkeypatch.setattr(module, "LEASE_SECONDS", 10)
    monkeypatch.setattr(event_loop, "BEAT_SECONDS", 0.2)

    async def main() -> None:
        async with limiter.acquire(account="a") as lease:
            first = redis.zscore("concurrency:leases", lease.token)
            await until(lambda: redis.zscore("concurrency:leases", lease.token) > first + 3)
            limiter.waiting_room.sweep(now=True)
            assert await lease.lost is False

    asyncio.run(main())


def test_what_is_held_comes_back_after_a_loss_of_data(limiter: Limiter, redis: Redis) -> None:
    """Its first beat comes at once, and says what it holds."""

    async def main() -> None:
        async with limiter.acquire(account="a") as lease:
            loop = limiter._async._loops[asyncio.get_running_loop()]
            await until(lambda: loop._leases.knows(lease.token))
            redis.flushall()
            limiter.config.sync()
            await until(lambda: redis.zrange(ACCOUNT, 0, -1) == [lease.token])

    asyncio.run(main())


def test_a_lease_cools_down_and_reports_refusals(limiter: Limiter) -> None:
    async def main() -> None:
        async with limiter.acquire(account="a", platform="p") as lease:
            assert isinstance(lease, AsyncLease)
            until_ = await lease.refused("account", 60, reason="429")
            assert lease.refused_in == {"account:a"}
            assert await lease.cool_down(30, "platform", reason="maintenance") > 0
        assert until_ == pytest.approx(limiter.keyspace.now() + 60, abs=30)
        assert {one.limit for one in limiter.cooldowns.read()[0]} == {"account:a", "platform:p"}

    asyncio.run(main())
    found = limiter.cooldowns.find("account:a")
    assert found
    assert (found.reason, found.refused) == ("429", True)


# -- event loops


def test_loops_one_after_another_and_beside_each_other(limiter: Limiter, redis: Redis) -> None:
    order: list[str] = []

    async def hold(other: threading.Barrier) -> None:
        async with limiter.acquire(account=f"b{threading.get_ident()}"):
            await asyncio.to_thread(other.wait)

    for name in "ab":
        asyncio.run(enter(limiter, order, name))
        with limiter.acquire(account="a"):
            order.append("with")
    assert order == ["a", "with", "b", "with"]
    barrier = threading.Barrier(2, timeout=60)
    threads = [threading.Thread(target=asyncio.run, args=(hold(barrier),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not barrier.broken
    assert not redis.exists(*NOTHING_LEFT)


def test_connections_are_closed_when_nobody_has_called_for_a_while(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_loop, "IDLE_SECONDS", 0.1)
    limiter.config.sync()
    before = len(redis.client_list())

    async def main() -> None:
        for _ in range(2):
            async with limiter.acquire(account="a"):
                assert len(redis.client_list()) > before
            await until(lambda: len(asyncio.all_tasks()) == 1)
            await until(lambda: len(redis.client_list()) <= before)

    asyncio.run(main())


TWICE = """
import asyncio, gc, json, sys
from celery_concurrency.limiter import Limiter, connect

async def wait(limiter):
    async with limiter.acquire(account="a"):
        await asyncio.sleep(0)

async def main(limiter):
    async with limiter.acquire(account="a"):
        tasks = [asyncio.create_task(wait(limiter)) for _ in range(3)]
        while not limiter.redis.zcard(limiter.keyspace.keys.group('["global", "account:a"]')) == 3:
            await asyncio.sleep(0.01)
        tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

with connect(sys.argv[1], json.loads(sys.argv[2])) as client:
    limiter = Limiter(client)
    for _ in range(2):
        asyncio.run(main(limiter))
        gc.collect()
"""


def silent(url: str, **options: Any) -> None:
    """Run two loops in a program of its own, which warns of all that is not closed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TWICE, url,
         json.dumps(options)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_loops_end_without_a_warning(redis_url: str) -> None:
    silent(f"{redis_url}?socket_timeout=60")


def test_a_unix_socket(tmp_path: Path) -> None:
    with Server("--unixsocket", str(tmp_path / "socket")):
        silent(f"unix://{tmp_path / 'socket'}?db=1&socket_timeout=60")
