"""What a call costs when many wait, beside what it costs when few do; and what a waiter takes."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from redis import Redis

from benchmarks.crowd import Crowd
from celery_concurrency import scripts
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.limiter.waiting_room import STEPS

FEW = 1_000
BATCH = 10
ROUNDS = 40


def measure(
    redis: Redis, many: int, each: int, say: Callable[[str], None]
) -> dict[str, float | int]:
    """Park and release by turns in a small and in a large crowd on the same server.

    Args:
        redis: an empty server.
        many: that wait in the large one.
        each: of them that are a group.

    Returns:
        medians, as the server itself measured them.
    """
    crowds = {"few": Crowd(redis, "few"), "many": Crowd(redis, "many")}
    waiter_bytes = 0.0
    for name, waiting in (("few", FEW), ("many", many)):
        say(f"{waiting:,} wait, {each} a group")
        crowds[name].hold(iter(range(waiting // each)))
        before = redis.info("memory")["used_memory"]
        crowds[name].park(account for account in range(waiting // each) for _ in range(each))
        used = redis.info("memory")["used_memory"] - before
        waiter_bytes = (used - crowds[name].message_bytes) / waiting
    costs: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS):
        for name, crowd in crowds.items():
            for verb, call in (("park", park), ("hand-over", release)):
                accounts = some(number, len(crowd.holders))
                costs.setdefault((verb, name), []).append(
                    timed(redis, lambda crowd=crowd, call=call, all=accounts: [
                        call(crowd, account) for account in all
                    ])
                )  # fmt: skip
            for account in some(number, len(crowd.holders)):
                crowd.take_over(account)
    parks, releases = (
        [median(costs[verb, name]) for name in crowds] for verb in ("park", "hand-over")
    )
    found = {
        "waiting": many,
        "park_us": round(parks[1], 1),
        "park_growth": round(parks[1] / parks[0], 2),
        "handover_us": round(releases[1], 1),
        "handover_growth": round(releases[1] / releases[0], 2),
        "waiter_bytes": round(waiter_bytes),
    }
    say(f"  {found}")
    return found


def some(number: int, groups: int) -> list[int]:
    """Return different groups in each round, all over the crowd."""
    return [(number * BATCH + i) * 7919 % groups for i in range(min(BATCH, groups))]


def timed(redis: Redis, calls: Callable[[], object]) -> float:
    """Return the microseconds that the server took for a call of these, on the average."""
    before = redis.info("commandstats")["cmdstat_evalsha"]
    calls()
    after = redis.info("commandstats")["cmdstat_evalsha"]
    return float((after["usec"] - before["usec"]) / (after["calls"] - before["calls"]))


def park(crowd: Crowd, account: int) -> None:
    """Let one more task of an account wait."""
    waiter = crowd.waiter(account)
    facts = crowd.limiter.waiting_room._facts(waiter)
    scripts.call(
        crowd.redis, "park", crowd.limiter.prefix, waiter.run, waiter.name,
        group_of(waiter.limits), waiter.ticket, facts, waiter.message, "", STEPS,
    )  # fmt: skip


def release(crowd: Crowd, account: int) -> None:
    """Release what holds an account."""
    reply = scripts.call(
        crowd.redis, "release", crowd.limiter.prefix, crowd.holders[account], 0, 7200, "", STEPS
    ).reply
    assert reply[0] == 1
