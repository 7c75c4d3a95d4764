"""How long runs waited and held: records, histograms, percentiles."""

from __future__ import annotations

import pytest
from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.stats import durations
from celery_concurrency.limiter.stats.durations import (
    BOUNDS,
    INTERVAL,
    KEPT_SECONDS,
    Histogram,
    Spans,
)
from celery_concurrency.limiter.stats.names import read_names
from tests.support.floor import Floor

ENDED = "concurrency:stats:ended"
TOTAL = "concurrency:stats:times"
TAGS = {"platform": "douyin", "type": "publish", "account": "secret"}


def run(limiter: Limiter, name: str, waited: float = 0, held: float = 0, **tags: str) -> None:
    """A run comes and goes, as if it had waited and held for so many seconds."""
    limiter.try_acquire(name, tags)
    key = f"concurrency:token:{name}"
    since, asked = limiter.redis.hmget(key, "since", "asked")
    limiter.redis.hset(key, "since", f"{float(since) - held:.6f}")
    limiter.redis.hset(key, "asked", int(asked) - int(1000 * (held + waited)))
    limiter.release(name)


def test_a_run_that_ended_leaves_one_record(limiter: Limiter, redis: Redis) -> None:
    run(limiter, "a", waited=2, held=300, **TAGS)
    [record] = redis.lrange(ENDED, 0, -1)
    asked, since, ended, group = record.split(" ", 3)
    assert float(since) - int(asked) / 1000 == pytest.approx(2, abs=0.01)
    assert 300 <= float(ended) - float(since) < 360
    assert group == '["global", "platform:douyin", "account:secret", "task_type:publish"]'
    limiter.release("a")
    assert redis.llen(ENDED) == 1, "a second copy left another"


def test_records_that_nobody_counts_are_bounded(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.rpush(ENDED, *["old"] * 20_000)
    run(limiter, "a")
    run(limiter, "b")
    assert redis.llen(ENDED) == 20_000
    assert redis.lindex(ENDED, -1) != "old"


def test_they_are_counted_by_limit_and_never_by_account(limiter: Limiter, redis: Redis) -> None:
    limiter.config.update({"dimensions": {"tenant": {"max": 9, "overrides": {"named": 5}}}})
    run(limiter, "a", waited=2, held=700, **TAGS, tenant="named")
    run(limiter, "b", held=400, platform="douyin", tenant="one of a million")
    assert limiter.durations.tally() == 2
    assert limiter.durations.tally() == 0
    assert not redis.exists(ENDED)
    spans = limiter.durations.total(read_names(limiter.keyspace))
    assert {limit: one.count for limit, one in spans.wait.items()} == {
        "global": 2,
        "platform:douyin": 2,
        "task_type:publish": 1,
        "tenant:named": 1,
    }
    assert spans.wait["global"].counts == {0: 1, 2500: 1}
    assert spans.wait["global"].milliseconds == pytest.approx(2000, abs=20)
    assert spans.hold["global"].counts == {600_000: 1, 1_800_000: 1}
    assert spans.hold["task_type:publish"].counts == {1_800_000: 1}


def test_each_five_minutes_have_a_hash_that_goes_after_a_day(
    limiter: Limiter, redis: Redis
) -> None:
    run(limiter, "a")
    limiter.durations.tally()
    [key] = redis.keys(f"{TOTAL}:*")
    start = int(key.rpartition(":")[2])
    now = redis.time()[0]
    assert start % INTERVAL == 0
    assert start <= now < start + 2 * INTERVAL
    assert redis.expiretime(key) == start + INTERVAL + KEPT_SECONDS
    assert redis.ttl(TOTAL) == -1, "what Prometheus counts with would begin anew"
    [spans] = limiter.durations.series(start, start + INTERVAL, INTERVAL, [])
    assert spans == limiter.durations.total(read_names(limiter.keyspace))


def test_one_call_is_bounded_and_a_second_copy_counts_the_next(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durations, "BATCH", 2)
    monkeypatch.setattr(durations, "CALLS", 2)
    for name in "abcdefg":
        run(limiter, name)
    assert [limiter.durations.tally() for _ in range(3)] == [4, 3, 0]
    assert limiter.durations.total(read_names(limiter.keyspace)).hold["global"].count == 7


def test_a_run_that_expired_is_counted_and_a_reservation_is_not(
    limiter: Limiter, redis: Redis
) -> None:
    floor = Floor(limiter, redis)
    holder = floor.hold(account="a")
    floor.wait("waiter", account="a")
    floor.lapse(holder)
    floor.sweep()  # takes it back, and hands its room over
    assert limiter.durations.tally() == 1
    [reservation] = floor.holders("account:a")
    floor.lapse(reservation)
    floor.sweep()
    assert limiter.durations.tally() == 0


def test_waiting_counts_from_asking_first_whatever_the_priority(
    limiter: Limiter, redis: Redis
) -> None:
    floor = Floor(limiter, redis)
    holder = floor.hold(account="a")
    floor.wait("waiter", rank=200, account="a")
    score = int(redis.zrange(floor_group(redis), 0, 0, withscores=True)[0][1])
    redis.zadd(floor_group(redis), {"waiter": score - 500_000})  # asked so long before
    limiter.release(holder)
    [message] = floor.back()
    token = floor.deliver(message).token
    limiter.release(token)
    limiter.durations.tally()
    wait = limiter.durations.total(read_names(limiter.keyspace)).wait["global"]
    assert 500_000 <= wait.milliseconds < 560_000


def floor_group(redis: Redis) -> str:
    [group] = redis.zrange("concurrency:groups", 0, -1)
    return f"concurrency:group:{group}"


def test_what_somebody_wrote_there_by_hand_stops_nothing(limiter: Limiter, redis: Redis) -> None:
    redis.rpush(ENDED, "nonsense")
    redis.hset(TOTAL, "nonsense", "x")
    run(limiter, "a")
    assert limiter.durations.tally() == 2
    assert limiter.durations.total(read_names(limiter.keyspace)).hold["global"].count == 1


def test_bounds_ascend() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert all(isinstance(bound, int) for bound in BOUNDS)


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ({}, 0.5, 0.0),
        ({0: 10}, 0.99, 0.0),
        ({10: 10}, 0.5, 0.005),
        ({0: 5, 1000: 5}, 0.5, 0.0),
        ({0: 5, 1000: 5}, 0.75, 0.75),
        ({2500: 4, 5000: 4}, 0.5, 2.5),
        ({2500: 4, 5000: 4}, 0.75, 3.75),
        ({None: 3}, 0.5, 86_400.0),
        ({0: 99, None: 1}, 0.95, 0.0),
        # A bound that this version does not have.
        ({7: 10}, 0.5, 0.0035),
    ],
)
def test_quantiles_are_linear_within_a_bucket(
    counts: dict[int | None, int], share: float, seconds: float
) -> None:
    assert Histogram(counts).quantile(share) == pytest.approx(seconds)


def test_a_limit_may_have_any_name() -> None:
    spans = Spans.of({b"wait 10 platform:a sum 5\nb c": b"3", b"hold sum global": b"7"})
    assert spans.wait["platform:a sum 5\nb c"].counts == {10: 3}
    assert spans.hold["global"].milliseconds == 7


def test_the_cost_of_a_batch_is_bounded(limiter: Limiter, redis: Redis) -> None:
    """What many records have in common is written once."""
    for number in range(300):
        run(limiter, f"r{number}", **TAGS)
    redis.config_resetstat()
    scripts.call(limiter.redis, "tally", "concurrency", 200, 300, 90_000, *BOUNDS)
    written = redis.info("commandstats")["cmdstat_hincrby"]["calls"]
    assert written <= 2 * 2 * 3 * (len(BOUNDS) + 2)
    assert redis.llen(ENDED) == 100
