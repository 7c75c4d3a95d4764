"""Which limits have statistics by name: there is room for so many, and the rest counts together."""

from __future__ import annotations

import json
import logging
import re

import pytest
from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.limits import BUILTIN_DIMENSIONS, dimension_of, limit_problem
from celery_concurrency.limiter.stats.counters import Copy, copies_up_to
from celery_concurrency.limiter.stats.history import LIMITS_MOST, read_stats_history
from celery_concurrency.limiter.stats.names import read_names
from celery_concurrency.log import LIMITER_LOG
from celery_concurrency.scripts.constants import BY_LIMIT, NAMED_MOST, OTHER, TOTALS

COUNTERS = "concurrency:stats:counters"
TIMES = "concurrency:stats:times"
NAMED = "concurrency:stats:named"
HISTORY = "concurrency:stats:history"
DAY = 86_400


def run(limiter: Limiter, **tags: str) -> None:
    number = next(NUMBERS)
    limiter.try_acquire(f"run{number}", tags)
    limiter.release(f"run{number}")


NUMBERS = iter(range(10**9))


def crowd(redis: Redis, free: int = 0, age: int = 0) -> None:
    """Others were used some seconds ago, and leave room for so many."""
    at = redis.time()[0] - age
    redis.zadd(NAMED, {f"platform:crowd{number}": at for number in range(NAMED_MOST - free)})


def minute_later(limiter: Limiter, redis: Redis) -> None:
    """Store a copy, as if the others had been stored a minute before."""
    copies = redis.xrange(HISTORY)
    redis.delete(HISTORY)
    for entry_id, copy in copies:
        redis.xadd(HISTORY, copy, id=f"{int(entry_id.partition('-')[0]) - 61_000}-0")
    assert limiter.stats.snapshot()


def told(limiter: Limiter) -> dict[str, int]:
    """Return what the copies say that the counters are."""
    counters: dict[str, int] = {}
    for copy in copies_up_to(limiter.keyspace, "+"):
        copy.apply_to(counters)
    return {name: count for name, count in counters.items() if count}


def test_a_flood_of_names_is_counted_together(limiter: Limiter, redis: Redis) -> None:
    for number in range(NAMED_MOST + 30):
        run(limiter, platform=f"tenant-{number}")
        limiter.durations.tally()
    counted = limiter.stats.window("total")
    assert counted["acquired:total"] == NAMED_MOST + 30
    assert counted["acquired:other/platform"] == 30
    assert sum(name.startswith("acquired:platform:") for name in counted) == NAMED_MOST
    assert redis.hlen(COUNTERS) == NAMED_MOST + 3
    spans = limiter.durations.total(read_names(limiter.keyspace))
    assert spans.hold["other/platform"].count == 30
    assert len(spans.hold) == NAMED_MOST + 2  # and global


def test_what_is_denied_counts_together_too_and_never_half(limiter: Limiter, redis: Redis) -> None:
    crowd(redis)
    limiter.config.update({"global_max": 1})
    limiter.try_acquire("holder", {})
    limiter.try_acquire("first", {"platform": "late", "type": "late"})
    limiter.try_acquire("second", {"platform": "late"})
    denied = {name: int(n) for name, n in redis.hgetall(COUNTERS).items() if "denied" in name}
    assert denied == {
        "denied:total": 2,
        "denied:other/platform": 2,
        "denied:other/task_type": 1,
    }


def test_what_the_configuration_names_is_counted_by_name(limiter: Limiter, redis: Redis) -> None:
    crowd(redis)
    limiter.config.update({"platform_max": {"mine": 5}, "dimensions": {"tenant": {"max": 9}}})
    limiter.config.update({"dimensions": {"tenant": {"overrides": {"t1": 5}}}})
    run(limiter, platform="mine", tenant="t1")
    run(limiter, platform="late", tenant="t1")
    limiter.durations.tally()
    counted = limiter.stats.window("total")
    assert (counted["acquired:platform:mine"], counted["acquired:other/platform"]) == (1, 1)
    spans = limiter.durations.total(read_names(limiter.keyspace))
    assert {name: one.count for name, one in spans.hold.items()} == {
        "global": 2, "platform:mine": 1, "other/platform": 1, "tenant:t1": 2,
    }  # fmt: skip


def test_what_the_configuration_names_is_bounded_as_well(limiter: Limiter, redis: Redis) -> None:
    crowd(redis)
    limiter.config.update({"platform_max": {f"mine{n}": 5 for n in range(NAMED_MOST + 1)}})
    for number in range(NAMED_MOST + 1):
        run(limiter, platform=f"mine{number}")
    assert redis.zcard(NAMED) == 2 * NAMED_MOST
    assert redis.hget(COUNTERS, "acquired:other/platform") == "1"


def test_a_name_that_nobody_uses_for_a_day_leaves_its_room(limiter: Limiter, redis: Redis) -> None:
    crowd(redis, free=1)
    run(limiter, platform="yesterday")
    limiter.durations.tally()
    assert limiter.stats.snapshot()
    assert redis.hget(COUNTERS, "acquired:platform:yesterday") == "1"
    redis.zadd(NAMED, {"platform:yesterday": redis.time()[0] - DAY - 1})
    minute_later(limiter, redis)
    assert redis.hkeys(COUNTERS) == ["acquired:total", "released:total"]
    assert not [name for name in redis.hkeys(TIMES) if "yesterday" in name]
    assert told(limiter) == {"acquired:total": 1, "released:total": 1}
    run(limiter, platform="today")
    assert limiter.stats.window()["acquired:platform:today"] == 1


def test_one_that_is_used_or_configured_stays(limiter: Limiter, redis: Redis) -> None:
    run(limiter, platform="used")
    run(limiter, platform="douyin")
    assert limiter.stats.snapshot()
    run(limiter, platform="used")
    old = redis.time()[0] - DAY - 1
    redis.zadd(NAMED, {"platform:used": old, "platform:douyin": old})
    minute_later(limiter, redis)
    assert sorted(read_names(limiter.keyspace)) == ["platform:douyin", "platform:used"]
    assert told(limiter) == limiter.stats.window("total")


def test_ends_are_use_too(limiter: Limiter, redis: Redis) -> None:
    """Of a dimension of one's own there are no counters, and a run may last for days."""
    limiter.config.update({"dimensions": {"tenant": {"max": 9, "overrides": {"t1": 5}}}})
    limiter.try_acquire("a", {"platform": "slow", "tenant": "t1"})
    redis.zadd(NAMED, {"platform:slow": 1, "tenant:t1": 1})
    limiter.release("a")
    limiter.durations.tally()
    for name in ("platform:slow", "tenant:t1"):
        assert redis.zscore(NAMED, name) > redis.time()[0] - 60


def test_a_copy_has_what_changed(limiter: Limiter, redis: Redis) -> None:
    # Not where an hour begins, whose first copy has all.
    seconds, _ = redis.time()
    redis.xadd(HISTORY, {"counters": "{}"}, id=f"{(seconds - 1) // 60 * 60_000 - 1}-0")
    for name in ("a", "b"):
        run(limiter, platform=name)
    limiter.stats.snapshot()
    run(limiter, platform="b")
    minute_later(limiter, redis)
    [*_, (_, last)] = redis.xrange(HISTORY)
    if "changed" in last:
        assert json.loads(last["changed"]) == {
            "acquired:total": "3", "released:total": "3", "acquired:platform:b": "2",
        }  # fmt: skip
    assert told(limiter) == limiter.stats.window("total")


def test_copies_of_a_former_version_are_understood(limiter: Limiter, redis: Redis) -> None:
    now = redis.time()[0] * 1000
    redis.xadd(HISTORY, {"counters": json.dumps({"acquired:total": "3"})}, id=f"{now - 120_000}-0")
    redis.xadd(HISTORY, {"counters": json.dumps({"acquired:total": "4"})}, id=f"{now - 61_000}-0")
    redis.hset(COUNTERS, "acquired:total", 9)
    assert limiter.stats.snapshot()
    assert told(limiter) == {"acquired:total": 9}


def test_a_copy_names_its_time() -> None:
    copy = Copy.of((b"1500-0", {b"changed": b'{"acquired:total": "1"}'}))
    assert (copy.at, copy.counters, copy.is_full) == (1.5, {"acquired:total": 1}, False)


@pytest.mark.parametrize("stale", [20_000])
def test_what_a_former_version_left_is_taken_out_in_steps(
    limiter: Limiter, redis: Redis, stale: int
) -> None:
    fill_as_before(redis, stale)
    run(limiter, platform="douyin")
    steps = 0
    while not scripts.call(limiter.redis, "trim", "concurrency", 500).reply:
        steps += 1
        assert steps < 400, "a walk without end"
    assert redis.hlen(COUNTERS) <= NAMED_MOST + 10
    assert redis.hlen(TIMES) <= 4 * (NAMED_MOST + 10)
    assert redis.hget(COUNTERS, "acquired:total") == str(stale + 1)
    assert redis.hget(COUNTERS, "acquired:platform:douyin") == "1"
    assert redis.hget(TIMES, "wait 0 global") == str(stale)
    assert not redis.exists("concurrency:stats:trimmed")


def test_a_step_of_it_is_bounded(limiter: Limiter, redis: Redis) -> None:
    fill_as_before(redis, 20_000)
    redis.config_resetstat()
    scripts.call(limiter.redis, "trim", "concurrency", 500)
    calls = redis.info("commandstats")
    assert sum(one["calls"] for one in calls.values()) < 6 * 600


def test_whoever_stores_a_copy_takes_the_next_steps(limiter: Limiter, redis: Redis) -> None:
    fill_as_before(redis, 20_000)
    limiter.stats.snapshot()
    left = redis.hlen(COUNTERS)
    assert left < 12_000
    if not limiter.stats.snapshot():  # nor has the next minute begun
        assert redis.hlen(COUNTERS) == left, "no copy, no steps"
    minute_later(limiter, redis)
    assert redis.hlen(COUNTERS) < NAMED_MOST + 10


def fill_as_before(redis: Redis, names: int) -> None:
    """Count a run of each of so many platforms as a former version did."""
    counters = {f"acquired:platform:tenant-{n}": 1 for n in range(names)}
    redis.hset(COUNTERS, mapping={**counters, "acquired:total": names, "released:total": names})
    times = {
        f"{kind} {bucket} platform:tenant-{n}": 1
        for n in range(names)
        for kind in ("wait", "hold")
        for bucket in ("0", "sum")
    }
    redis.hset(TIMES, mapping={**times, "wait 0 global": names, "nonsense": "x"})


def test_names_of_a_former_version_stay_while_there_is_room(limiter: Limiter, redis: Redis) -> None:
    redis.hset(COUNTERS, mapping={"acquired:total": 9, "acquired:platform:seldom": 9})
    limiter.stats.snapshot()
    run(limiter, platform="seldom")
    assert limiter.stats.window("total")["acquired:platform:seldom"] == 10


def test_copies_of_a_flood_are_taken_out(limiter: Limiter, redis: Redis) -> None:
    counters = {f"acquired:platform:tenant-{n}": "1" for n in range(20_000)}
    large = json.dumps(counters, separators=(",", ":"))  # as scripts write it
    for minute in range(10, 0, -1):
        at = redis.time()[0] - 60 * minute - 1
        redis.xadd(HISTORY, {"counters": large if minute % 2 else "{}"}, id=f"{at * 1000}-0")
    limiter.stats.snapshot()
    assert redis.xlen(HISTORY) == 5 + 1


def test_copies_of_long_names_stay(limiter: Limiter, redis: Redis) -> None:
    names = [f"platform:{'任' * 190}{number:03}" for number in range(2 * NAMED_MOST)]
    redis.zadd(NAMED, {name: redis.time()[0] for name in names})
    redis.hset(COUNTERS, mapping={f"{what}:{name}": 1 for what in BY_LIMIT for name in names})
    limiter.stats.snapshot()
    [(_, copy)] = redis.xrange(HISTORY)
    assert len(json.loads(copy["counters"])) == len(BY_LIMIT) * len(names)


def test_it_is_logged_once(
    limiter: Limiter, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, LIMITER_LOG)
    limiter.stats.snapshot()
    crowd(redis)
    for _ in range(3):
        minute_later(limiter, redis)
    [record] = caplog.records
    assert "other/platform and other/task_type" in record.getMessage()
    assert record.concurrency == {"decision": "statistics full", "limit": NAMED_MOST}


def test_usage_says_so(limiter: Limiter, redis: Redis) -> None:
    assert "statistics_full" not in limiter.usage().to_dict()
    assert not list(limiter.usage().notes())
    crowd(redis)
    assert limiter.usage().to_dict()["statistics_full"] is True
    [note] = limiter.usage().notes()
    assert "other/platform" in note


def test_a_history_has_the_busiest(limiter: Limiter, redis: Redis) -> None:
    for number in range(LIMITS_MOST + 5):
        for _ in range(2 if number == 3 else 1):
            run(limiter, platform=f"p{number}")
    limiter.durations.tally()
    found = read_stats_history(limiter.keyspace, "5m", "1h")
    assert found.left_out == 5
    counted = {name for point in found.points for name in point.counters}
    assert "acquired:platform:p3" in counted
    assert sum(name.startswith("acquired:platform:") for name in counted) == LIMITS_MOST
    [point] = [point for point in found.points if point.hold]
    assert {f"acquired:{name}" for name in point.hold if ":" in name} <= counted


def test_a_history_has_dimensions_of_ones_own_too(limiter: Limiter, redis: Redis) -> None:
    """They have no counters by which they could be among the busiest."""
    limiter.config.update({"dimensions": {"tenant": {"max": 9, "overrides": {"t1": 5}}}})
    run(limiter, platform="p", tenant="t1")
    limiter.durations.tally()
    now = redis.time()[0]
    for number in range(LIMITS_MOST + 5):
        redis.zadd(NAMED, {f"platform:{number}": now})
        redis.hset(COUNTERS, f"acquired:platform:{number}", 100)
    found = read_stats_history(limiter.keyspace, "5m", "1h")
    assert found.left_out == 6
    [hold] = [point.hold for point in found.points if point.hold]
    assert hold.keys() == {"global", "tenant:t1"}


def test_no_limit_is_named_as_what_counts_together() -> None:
    """Neither a tag nor the configuration can make a limit without a colon."""
    for dimension in BUILTIN_DIMENSIONS:
        assert limit_problem(OTHER + dimension)
        assert dimension_of(OTHER + dimension) == dimension
    assert dimension_of("platform:other/platform") == "platform"
    assert dimension_of("other/tenant:a") == "other/tenant"


def test_all_totals_are_known() -> None:
    """The copies have no others."""
    verbs = ("acquire", "release", "park", "cancel", "sweep", "renew", "advance", "refuse")
    counted = {
        name for verb in verbs for name in re.findall(r"'(\w+):total'", scripts.source(verb))
    }
    counted |= set(re.findall(r"count\('(\w+):',", scripts.source("acquire")))
    # Why one may not wait is counted by its own name.
    counted |= set(re.findall(r"return \{ '(\w+)', limit, ", scripts.source("acquire")))
    assert counted == set(TOTALS)
