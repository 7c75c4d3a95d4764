"""The statistics: totals since the beginning, and what of them fell in a window."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.stats.counters import SNAPSHOTS_KEPT

HISTORY = "concurrency:stats:history"
HOUR = 3_600_000  # milliseconds


def run(limiter: Limiter, name: str) -> None:
    limiter.try_acquire(name, {"platform": "douyin", "type": "publish", "account": name})
    limiter.release(name)


def keep(redis: Redis, age: int, **counters: int) -> None:
    """Put a copy of the counters into the history, ``age`` milliseconds old."""
    seconds, micros = redis.time()
    at = seconds * 1000 + micros // 1000 - age
    text = json.dumps({name.replace("_", ":"): str(count) for name, count in counters.items()})
    redis.xadd(HISTORY, {"counters": text}, id=f"{at}-0")


@pytest.mark.parametrize("window", ["1h", "6h", "24h", "total"])
def test_a_young_system_has_all_in_every_window(limiter: Limiter, window: str) -> None:
    run(limiter, "a")
    run(limiter, "b")
    assert limiter.stats.window(window) == {
        "acquired:total": 2,
        "released:total": 2,
        "acquired:platform:douyin": 2,
        "acquired:task_type:publish": 2,
    }


def test_the_totals_are_there_before_anything_ran(limiter: Limiter) -> None:
    assert limiter.stats.window() == {"acquired:total": 0, "released:total": 0}


def test_a_window_counts_since_the_copy_at_its_start(limiter: Limiter, redis: Redis) -> None:
    keep(redis, 30 * HOUR, acquired_total=1)
    keep(redis, 25 * HOUR, acquired_total=2, released_total=2)
    keep(redis, 2 * HOUR, acquired_total=5, released_total=4)
    keep(redis, HOUR // 2, acquired_total=7)
    redis.hset("concurrency:stats:counters", mapping={"acquired:total": 10, "released:total": 9})
    assert limiter.stats.window("total")["acquired:total"] == 10
    assert limiter.stats.window("24h") == {"acquired:total": 8, "released:total": 7}
    assert limiter.stats.window("1h") == {"acquired:total": 5, "released:total": 5}


def test_counters_that_an_operator_deleted_are_never_negative(
    limiter: Limiter, redis: Redis
) -> None:
    keep(redis, 25 * HOUR, acquired_total=1000)
    run(limiter, "a")
    assert limiter.stats.window("24h")["acquired:total"] == 1


def test_a_copy_is_kept_once_a_minute(limiter: Limiter, redis: Redis) -> None:
    run(limiter, "a")
    assert limiter.stats.snapshot() is True
    again = limiter.stats.snapshot()
    (first, fields), *more = redis.xrange(HISTORY)
    assert again is bool(more)
    if more:  # the next minute had begun
        first, second = (int(one.partition("-")[0]) for one in (first, more[0][0]))
        assert first // 60_000 < second // 60_000
    assert json.loads(fields["counters"])["acquired:total"] == "1"
    redis.delete(HISTORY)
    keep(redis, 61_000, acquired_total=0)
    assert limiter.stats.snapshot() is True
    assert redis.xlen(HISTORY) == 2


def test_the_history_is_bounded(limiter: Limiter, redis: Redis) -> None:
    for age in range(SNAPSHOTS_KEPT + 300, 1, -1):
        keep(redis, age * 60_000, acquired_total=0)
    assert limiter.stats.snapshot() is True
    # Trimmed by whole nodes of the stream, which is what "~" says: not to the entry.
    assert SNAPSHOTS_KEPT <= redis.xlen(HISTORY) < SNAPSHOTS_KEPT + 200


def test_accounts_are_never_counted_by_name(limiter: Limiter, redis: Redis) -> None:
    run(limiter, "secret-account")
    assert not [name for name in redis.hkeys("concurrency:stats:counters") if "account" in name]


def test_denials_are_counted_in_all_by_platform_and_by_type(limiter: Limiter) -> None:
    tags = {"platform": "douyin", "type": "publish", "account": "a"}
    limiter.try_acquire("holder", tags)
    limiter.try_acquire("first", tags)
    limiter.try_acquire("second", {"account": "a"})
    counted = limiter.stats.window()
    assert {name: count for name, count in counted.items() if name.startswith("denied")} == {
        "denied:total": 2,
        "denied:platform:douyin": 1,
        "denied:task_type:publish": 1,
    }
