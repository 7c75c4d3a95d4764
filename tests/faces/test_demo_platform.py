"""The demo's fake platform, by whose records the demo, the benchmarks and the tests judge."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from redis import Redis

from celery_concurrency.demo import platform as demo_platform
from celery_concurrency.demo.platform import (
    Platform,
    Refused,
    RiskControl,
    Strictness,
    capacity,
)


@pytest.fixture
def redis(redis_url, monkeypatch):
    # So long that a slow machine makes all calls of a test in one.
    monkeypatch.setattr(demo_platform, "WINDOW", 600.0)
    with Redis.from_url(redis_url) as client:
        yield client


def made(redis, **options):
    return Platform(redis, "weibo", refusal_seconds=0, **options)


def accepted(platform, account="a", seconds=0.0):
    try:
        platform.call(account, seconds)
    except RiskControl:
        return False
    return True


def test_a_platform_allows_everything_until_it_is_told(redis):
    platform = made(redis)
    assert all(accepted(platform) for _ in range(20))
    assert platform.history() == []


def test_in_no_second_more_calls_begin_than_the_rate_allows(redis, monkeypatch):
    platform = made(redis)
    platform.allow(rate=3)
    assert [accepted(platform) for _ in range(5)] == [True] * 3 + [False] * 2
    monkeypatch.setattr(demo_platform, "WINDOW", 1.0)
    times = [call.at for call in platform.take_calls() if call.accepted]
    while len(times) < 9:
        accepted(platform, seconds=0.01)
        times += [call.at for call in platform.take_calls() if call.accepted]
    assert all(later - first > 1.0 for first, later in zip(times, times[3:], strict=False))


def test_no_more_calls_run_at_once_than_it_allows_and_all_processes_see_that(
    redis, redis_url, monkeypatch
):
    # They take so long for the platform alone.
    monkeypatch.setattr(demo_platform, "time", SimpleNamespace(sleep=lambda seconds: None))
    platform = made(redis)
    platform.allow(parallel=2)
    inside = threading.Barrier(9)

    def call(number):
        with Redis.from_url(redis_url) as other:
            inside.wait(60)
            return accepted(made(other), f"a{number}", 600.0)

    with ThreadPoolExecutor(9) as pool:
        assert sum(pool.map(call, range(9))) == 2
    assert not accepted(platform)
    # Their time is over, and there is room again.
    running = "platform:weibo:running"
    redis.zadd(running, dict.fromkeys(redis.zrange(running, 0, -1), 1))
    assert accepted(platform)


def test_it_changes_while_it_runs_and_records_that(redis):
    platform = made(redis)
    platform.allow(rate=1)
    assert accepted(platform)
    assert not accepted(platform)
    platform.allow()
    assert accepted(platform)
    first, then = platform.history()
    assert (first.rate, first.parallel, then.rate, then.parallel) == (1, 0, 0, 0)
    assert first.at <= then.at


def test_each_call_is_recorded_and_taken_once(redis):
    platform = made(redis)
    platform.allow(rate=1)
    assert accepted(platform, "a")
    assert not accepted(platform, '"b"')
    first, second = platform.take_calls()
    assert (first[1:], second[1:]) == (("a", True), ('"b"', False))
    assert 0 <= second.at - first.at < 60
    assert platform.take_calls() == []


def test_two_platforms_are_two(redis):
    strict, other = made(redis), Platform(redis, "other")
    strict.allow(rate=1)
    assert accepted(strict)
    assert not accepted(strict)
    assert accepted(other)
    assert other.take_calls()[0].account == "a"


def test_a_refusal_says_for_how_long_and_is_what_the_client_makes_it(redis):
    platform = made(redis, refusal=Refused, retry_after=2.5)
    platform.allow(parallel=1, rate=1)
    platform.call("a", 0)
    with pytest.raises(Refused, match="a is to wait") as refusal:
        platform.call("a", 0)
    assert refusal.value.retry_after == 2.5
    assert not isinstance(refusal.value, RiskControl)


def test_what_was_allowed_is_counted_between_two_moments():
    history = [Strictness(0, 0, 1), Strictness(10, 3, 2), Strictness(20, 0, 1)]
    assert capacity(history, 0, 30, 0.5) == 10 * 2 + 10 * 3 + 10 * 2
    assert capacity(history, 5, 12, 0.5) == 5 * 2 + 2 * 3
    assert capacity(history, 25, 26, 0.5) == 2
