"""How fast those who wait go on when very many may at once, and the longest call of that."""

from __future__ import annotations

import time
from collections.abc import Callable

from redis import Redis

from benchmarks.crowd import QUEUE, Crowd
from celery_concurrency import scripts
from celery_concurrency.waitingroom import STEPS

RAISED = 1_000


def measure(redis: Redis, many: int, say: Callable[[str], None]) -> dict[str, float | int]:
    """Raise ``global_max`` by a thousand, then switch the limits off.

    Args:
        redis: an empty server.
        many: that wait, an account each.
    """
    say(f"{many:,} wait for global")
    crowd = Crowd(redis, "steps", {"global_max": 1})
    crowd.hold(iter([0]))
    crowd.park(iter(range(1, many + 1)))
    found: dict[str, float | int] = {"waiting": many}
    for name, change, handed in (
        ("raised", {"global_max": 1 + RAISED}, RAISED),
        ("disabled", {"enabled": False}, many - RAISED),
    ):
        crowd.limiter.config._changed = lambda: None
        crowd.limiter.config.update(change)
        redis.delete(QUEUE)
        begin, longest, calls = time.perf_counter(), 0.0, 0
        changed, more = 1, 1
        while more:
            before = time.perf_counter()
            more, _ = scripts.call(redis, "advance", "steps", changed, STEPS).reply
            longest = max(longest, time.perf_counter() - before)
            changed, calls = 0, calls + 1
            if calls % 1000 == 0:
                say(f"  {redis.llen(QUEUE):,} have gone on")
        seconds = time.perf_counter() - begin
        assert redis.llen(QUEUE) == handed
        found |= {
            f"{name}_per_second": round(handed / seconds),
            f"{name}_calls": calls,
            f"{name}_longest_call_ms": round(longest * 1000, 2),
        }
    say(f"  {found}")
    return found
