"""The longest calls: a million wait, and a thousand of them, then all, may go on at once.

No call may keep others waiting: what takes long is done in many calls. Their lengths
are the server's own, from its SLOWLOG.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from redis import Redis

from benchmarks.crowd import QUEUE, Crowd
from celery_concurrency import scripts
from celery_concurrency.limiter.waiting_room import STEPS

BEFORE, AFTER = 10, 1_000
#: What is no longer, in microseconds, is not looked at.
SLOW = 500


def measure(redis: Redis, many: int, say: Callable[[str], None]) -> dict[str, float | int]:
    """Raise ``global_max`` from 10 to 1,000, then switch the limits off.

    Args:
        redis: an empty server.
        many: that wait, an account each.
    """
    say(f"{many:,} wait for global")
    crowd = Crowd(redis, "steps", {"global_max": BEFORE})
    crowd.hold(iter(range(BEFORE)))
    crowd.park(iter(range(BEFORE, many + BEFORE)))
    redis.config_set("slowlog-max-len", 100_000)
    redis.config_set("slowlog-log-slower-than", SLOW)
    redis.slowlog_reset()
    redis.config_resetstat()
    found: dict[str, float | int] = {"waiting": many}
    for name, change, handed in (
        ("raised", {"global_max": AFTER}, AFTER - BEFORE),
        ("disabled", {"enabled": False}, many - AFTER + BEFORE),
    ):
        crowd.limiter.config._changed = lambda: None
        crowd.limiter.config.update(change)
        redis.delete(QUEUE)
        begin = time.perf_counter()
        _go_on(redis, say)
        assert redis.llen(QUEUE) == handed
        found[f"{name}_per_second"] = round(handed / (time.perf_counter() - begin))
    slow = [entry["duration"] for entry in redis.slowlog_get(100_000)]
    calls = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    found |= {
        "calls": calls,
        "longest_call_ms": quantile(slow, calls, 0.9999) / 1000,
        "the_longest_ms": max(slow, default=SLOW) / 1000,
    }
    say(f"  {found}")
    return found


def _go_on(redis: Redis, say: Callable[[str], None]) -> None:
    """Call until nobody who waits can go on."""
    calls, changed, more = 0, 1, 1
    while more:
        more, _ = scripts.call(redis, "advance", "steps", changed, STEPS).reply
        changed, calls = 0, calls + 1
        if calls % 1000 == 0:
            say(f"  {redis.llen(QUEUE):,} have gone on")


def quantile(slow: list[int], calls: int, share: float) -> int:
    """Return within how many microseconds this share of all calls was done.

    Args:
        slow: the lengths of those longer than ``SLOW``.
        calls: of all.
    """
    beyond = calls - math.ceil(calls * share)
    ordered = sorted(slow, reverse=True)
    return ordered[beyond] if beyond < len(ordered) else SLOW
