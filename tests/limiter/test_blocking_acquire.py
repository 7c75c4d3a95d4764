"""``with limiter.acquire(...)``: holding tokens outside of tasks, in one order with them."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext, suppress

import pytest
from redis import Redis

from celery_concurrency.errors import InvalidCooldown, InvalidTag, LimiterUnavailable, LimitReached
from celery_concurrency.limiter import Limiter, blocking_acquire, caller
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.floor import Floor
from tests.support.proxies import Proxy
from tests.support.starts import exceeded
from tests.support.workers import wait_for

ACCOUNT = "concurrency:semaphore:account:a"


def test_the_block_holds_what_its_tags_need(limiter: Limiter, redis: Redis) -> None:
    with limiter.acquire(account="a", platform="douyin") as lease:
        assert redis.zrange(ACCOUNT, 0, -1) == [lease.token]
        assert lease.limits == ("global", "platform:douyin", "account:a")
        assert lease.lost is False
        assert lease.fence > 1_700_000_000_000_000
    assert not redis.exists(ACCOUNT)
    assert lease.lost is True


def test_a_block_that_fails_gives_its_tokens_back(limiter: Limiter, redis: Redis) -> None:
    with pytest.raises(ZeroDivisionError), limiter.acquire(account="a"):
        raise ZeroDivisionError
    assert not redis.exists(ACCOUNT)


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_a_block_that_ends_while_redis_is_away_is_no_failure(
    server: Server, redis: Redis, caplog: pytest.LogCaptureFixture, error: type[Exception] | None
) -> None:
    """What it has done is done; its tokens come back when Redis does."""
    proxy = Proxy(server.port)
    limiter = Limiter(connect(f"redis://127.0.0.1:{proxy.port}/0"))
    limiter.config.sync()
    with pytest.raises(error) if error else nullcontext(), limiter.acquire(account="a"):
        proxy.close()
        if error:
            raise error
    assert "tokens are released later" in caplog.text
    assert redis.exists(ACCOUNT)
    proxy.open()
    wait_for(lambda: not redis.exists(ACCOUNT))
    proxy.close()


def test_one_who_finds_no_room_waits_for_it(limiter: Limiter, redis: Redis) -> None:
    order = []

    def call(name: str) -> None:
        with limiter.acquire(account="a"):
            order.append(name)

    with limiter.acquire(account="a"):
        threads = []
        for number in range(4):
            threads.append(threading.Thread(target=call, args=(str(number),)))
            threads[-1].start()
            wait_for(lambda number=number: waiting(redis) == number + 1)
        assert order == []
    for thread in threads:
        thread.join(60)
    assert order == ["0", "1", "2", "3"]
    assert not redis.exists(ACCOUNT, "concurrency:groups")


def test_one_who_waits_too_long_is_told_for_what(limiter: Limiter, redis: Redis) -> None:
    with (
        limiter.acquire(account="a"),
        pytest.raises(LimitReached, match=r"account:a \(1 of 1\)"),
        limiter.acquire(account="a", timeout=0.1),
    ):
        raise AssertionError("held by two")
    assert waiting(redis) == 0


def test_a_caller_that_died_waits_no_longer_than_it_said(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lives says so anew, and keeps its place."""
    monkeypatch.setattr(caller, "STAY_SECONDS", 1)
    done = threading.Event()

    def call() -> None:
        with limiter.acquire(account="a"):
            done.set()

    with limiter.acquire(account="a"):
        thread = threading.Thread(target=call)
        thread.start()
        wait_for(lambda: int(redis.hget("concurrency:stats:counters", "parked:total") or 0) >= 3)
        assert not done.is_set()
    thread.join(60)
    assert done.is_set()


def test_a_lease_is_renewed_while_its_block_runs(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (caller, blocking_acquire):
        monkeypatch.setattr(module, "LEASE_SECONDS", 10)
    with limiter.acquire(account="a") as lease:
        first = redis.zscore("concurrency:leases", lease.token)
        # Each beat that finds two thirds of it left, or less, renews it: two of them, and more.
        wait_for(lambda: redis.zscore("concurrency:leases", lease.token) > first + 5)
        limiter.waiting_room.sweep(now=True)
        assert lease.lost is False


def test_a_token_is_renewed_at_once(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no beat has seen does not come back after a loss of data."""
    monkeypatch.setattr(blocking_acquire, "BEAT_SECONDS", 600)
    keeper = blocking_acquire.LeaseKeeper(limiter.leases)
    tokens = {"call:1", "call:2"}
    # By the second one the thread is there, and sleeps.
    for token in sorted(tokens):
        limiter.try_acquire(token, {"account": token})
        keeper.add(token)
        wait_for(lambda token=token: limiter.leases.knows(token))
    redis.flushall()
    limiter.config.sync()
    limiter.leases.beat(tokens, blocking_acquire.LEASE_SECONDS)
    assert set(redis.zrange("concurrency:semaphore:global", 0, -1)) == tokens
    for token in tokens:
        keeper.discard(token)


def test_a_dimension_that_comes_while_one_waits(limiter: Limiter, redis: Redis) -> None:
    """The room that was handed over for its old limits is its own, and in nobody's way."""
    limits: list[tuple[str, ...]] = []

    def call() -> None:
        with limiter.acquire(account="a", tenant="t") as lease:
            assert not redis.exists("concurrency:reservations")
            limits.append(lease.limits)

    with limiter.acquire(account="a"):
        thread = threading.Thread(target=call)
        thread.start()
        wait_for(lambda: waiting(redis) == 1)
        limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    thread.join(60)
    assert limits == [("global", "account:a", "tenant:t")]
    assert redis.hget("concurrency:stats:counters", "parked:total") == "1"
    assert not redis.exists(ACCOUNT, "concurrency:semaphore:tenant:t", "concurrency:groups")


def test_a_tag_that_names_no_limit_is_refused(limiter: Limiter) -> None:
    with pytest.raises(InvalidTag), limiter.acquire(account=""):
        raise AssertionError("held")


@pytest.fixture
def long_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not woken, or does not wake in time, is late by minutes."""
    monkeypatch.setattr(caller, "LOOK_SECONDS", 600)


@pytest.mark.usefixtures("long_looks")
def test_a_timeout_is_no_longer_than_it_says(limiter: Limiter, redis: Redis) -> None:
    with limiter.acquire(account="a"):
        for timeout in (0, 0.05):
            started = time.monotonic()
            with pytest.raises(LimitReached), limiter.acquire(account="a", timeout=timeout):
                raise AssertionError("held by two")
            assert time.monotonic() - started < 50
    assert waiting(redis) == 0


def test_one_that_is_interrupted_while_it_waits_leaves_nothing(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a place among those who wait, nor what was handed over to it just now."""
    with limiter.acquire(account="a") as held:

        def interrupted(*_: object, **__: object) -> None:
            limiter.release(held.token)
            raise KeyboardInterrupt

        monkeypatch.setattr(limiter.redis, "blpop", interrupted)
        with pytest.raises(KeyboardInterrupt), limiter.acquire(account="a"):
            raise AssertionError("held by two")
    assert not redis.exists("concurrency:groups", ACCOUNT, "concurrency:reservations")


def waiting(redis: Redis) -> int:
    return sum(redis.zcard(key) for key in redis.scan_iter("concurrency:group:*"))


def test_where_no_thread_can_renew_it_nothing_is_held(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    limiter.config.update({"rates": {"account:*": [{"max": 1, "per": 1000}]}})
    with pytest.raises(RuntimeError, match="new thread"), limiter.acquire(account="a"):
        raise AssertionError("held, and not renewed")
    assert not redis.exists(ACCOUNT)
    assert not redis.exists("concurrency:rate:account:a")


# -- limits in time; nobody is here but the caller


@pytest.mark.usefixtures("long_looks")
def test_one_who_waits_for_a_window_goes_on_at_its_moment(limiter: Limiter) -> None:
    limiter.config.update({"rates": {"account:a": [{"max": 2, "per": 1}]}})
    moments = []
    for _ in range(5):
        with limiter.acquire(account="a", timeout=170) as lease:
            moments.append(lease.fence)
    assert exceeded(moments, (2, 1)) == []
    late = (moments[-1] - moments[0]) / 1e6 - 2
    assert 0 <= late < 50


@pytest.mark.usefixtures("long_looks")
def test_one_who_waits_for_a_cool_down_goes_on_at_its_end_or_when_it_is_lifted(
    limiter: Limiter,
) -> None:
    until = limiter.cooldowns.set("account:a", 1)
    with limiter.acquire(account="a", timeout=170) as lease:
        assert until <= lease.fence / 1e6 < until + 50
    limiter.cooldowns.set("account:a", 600)
    granted = []

    def call() -> None:
        with limiter.acquire(account="a", timeout=170) as lease:
            granted.append(lease.fence / 1e6)

    caller = threading.Thread(target=call)
    caller.start()
    wait_for(lambda: limiter.redis.exists("concurrency:groups"))
    lifted = limiter.keyspace.now()
    assert limiter.cooldowns.lift("account:a")
    caller.join(60)
    [moment] = granted
    assert lifted <= moment < lifted + 50


def test_one_who_waits_too_long_for_a_moment_is_told_for_which_and_charged_none(
    limiter: Limiter, redis: Redis
) -> None:
    limiter.config.update({"rates": {"account:a": [{"max": 1, "per": 3600}]}})
    with limiter.acquire(account="a"):
        pass
    with pytest.raises(LimitReached, match=r"account:a opens in \d+ s \(1 per 3600 s\)"):
        limiter.acquire(account="a", timeout=0.2).__enter__()
    assert redis.zcard("concurrency:rate:account:a") == 1
    assert not redis.exists("concurrency:groups")


@pytest.mark.usefixtures("long_looks")
def test_a_block_that_cools_its_account_down_shuts_it_for_the_next(limiter: Limiter) -> None:
    with limiter.acquire(account="a") as lease:
        until = lease.cool_down(1, "account", reason="429")
    with limiter.acquire(account="a", timeout=170) as lease:
        assert until <= lease.fence / 1e6 < until + 50


@pytest.mark.parametrize("ends", ["succeeds", "fails", "is refused", "is refused, told later"])
def test_only_a_block_that_succeeds_opens_the_limit_in_which_it_goes_first(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """One that was refused did not succeed, though it ends without an exception."""
    with limiter.acquire(account="a") as lease:
        until = lease.refused("account", seconds=60, reason="429")
    assert until == pytest.approx(limiter.keyspace.now() + 60, abs=30)
    Floor(limiter, redis).age(60)

    def away(*args: object, **named: object) -> None:
        raise LimiterUnavailable("away")

    if ends == "is refused, told later":
        monkeypatch.setattr(limiter, "refusing", away)
    with suppress(ValueError), limiter.acquire(account="a", timeout=0) as lease:
        if ends == "fails":
            raise ValueError
        if ends.startswith("is refused"):
            lease.refused("account", seconds=0)
    found = limiter.cooldowns.find("account:a")
    assert (found is None) == (ends == "succeeds")
    if found:
        assert (found.refused, found.probe) == (True, None)


def test_a_refusal_of_what_a_block_does_not_hold_is_none(limiter: Limiter) -> None:
    with limiter.acquire(account="a") as lease:
        with pytest.raises(InvalidCooldown, match="'platform' is not one of global, account:a"):
            lease.refused("platform", seconds=60)
        with pytest.raises(InvalidCooldown, match="seconds"):
            lease.refused("account", seconds=-1)
