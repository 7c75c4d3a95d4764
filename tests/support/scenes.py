"""What an operator may find: limits in use, holders, waiters, a history; all of it real."""

from __future__ import annotations

from typing import Any

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.workers import WorkerFacts
from tests.support.waiting import hold, park
from tests.support.workers import wait_for

CONFIG = {
    "global_max": 12,
    "platform_max": {"douyin": 3, "xiaohongshu": 2, "bilibili": 4},
    "task_type_max": {"publish": 10},
    "dimensions": {"tenant": {"max": 2, "overrides": {"t1": 5}}},
}


def configure(limiter: Limiter) -> None:
    """Make a history of a few versions."""
    limiter.config.sync()
    limiter.config.update(CONFIG, Author("cli", "anna"))
    limiter.config.update({"platform_max": {"xiaohongshu": 1}}, Author("api", "王伟"))
    limiter.config.update({"paused": ["platform:kuaishou"]}, Author("api", "anna"))


def busy(limiter: Limiter) -> dict[str, Any]:
    """Let some run and some wait; returns tokens by task id, and who waits."""
    configure(limiter)
    douyin = {"platform": "douyin", "type": "publish"}
    small = {"platform": "xiaohongshu", "type": "batch_publish"}
    tokens = {
        f"run-{number}": hold(limiter, f"run-{number}", {**douyin, "account": f"acc{number}"})
        for number in range(3)
    }
    tokens["run-x"] = hold(limiter, "run-x", {**small, "account": "acc7", "tenant": "t1"})
    for number in range(4):
        park(limiter, f"wait-{number}", {**douyin, "account": f"acc{10 + number}"})
    park(limiter, "wait-same", {**douyin, "account": "acc1"})
    park(limiter, "wait-x", {**small, "account": "acc8"}, task="batch_publish")
    park(limiter, "wait-paused", {"platform": "kuaishou"})
    return tokens


def shut(limiter: Limiter) -> None:
    """Let limits be shut until a moment: by rates, and by cool-downs; some wait for it."""
    limiter.config.update(
        {
            "rates": {
                "account:*": [{"max": 1, "per": 100}, {"max": 15, "per": 86_400}],
                "platform:bilibili": [{"max": 4, "per": 3_600}],
            }
        }
    )
    for name in ("quick", "calm"):
        limiter.release(hold(limiter, f"ran-{name}", {"platform": "bilibili", "account": name}))
    park(limiter, "wait-rate", {"platform": "bilibili", "account": "quick"})
    limiter.cooldowns.set("platform:channels", 600, "429: slow down", "task 5f1c")
    limiter.cooldowns.set("account:banned", 86_400, "risk control", "anna")
    park(limiter, "wait-cool", {"platform": "channels"})


def refused(limiter: Limiter) -> str:
    """Let a platform have refused some: it has fallen, one account rests, and one is tried.

    Returns the token of the run that goes first.
    """
    limiter.config.update(
        {
            "account_max": 3,
            "adaptive": {
                "platform:bilibili": {"min": 1, "max": 8, "every": 30},
                "task_type:*": {"min": 2, "max": 20, "decrease": 0.7, "mode": "observe"},
            },
        }
    )
    for number in range(2):
        hold(limiter, f"fine-{number}", {"platform": "bilibili", "type": "publish"})
    for account, seconds in (("rests", 600), ("tried", 0.01)):
        tags = {"platform": "bilibili", "account": account}
        token = hold(limiter, f"refused-{account}", tags)
        limits = ("global", "platform:bilibili", f"account:{account}")
        limiter.refuse(token, limits, limits[-1], seconds, reason="429", by=f"refused-{account}")
        limiter.release(token)
    wait_for(lambda: over(limiter, "account:tried"), timeout=10, what="the cool-down's end")
    probe = hold(limiter, "tries", tags)
    park(limiter, "wait-probe", tags)
    return probe


def beat(limiter: Limiter, name: str, *, silent: float = 0, **facts: Any) -> None:
    """Let a worker say of itself that it lives, or have said so a while ago."""
    now = limiter.keyspace.now()
    usual = {"version": "0.1.0", "pool": "prefork", "concurrency": 4, "mode": "handoff"}
    worker = WorkerFacts(name, **{**usual, "since": now - 7500, **facts})
    limiter.leases.beat([], 30, worker)
    if silent:
        limiter.redis.hset(limiter.keyspace.keys.worker(name), "heard", now - silent)
        limiter.redis.zadd(limiter.keyspace.keys.workers, {name: now - silent + 30})


def fleet(limiter: Limiter) -> None:
    """Let there be workers of two modes and two versions, a silent one, and a program."""
    beat(limiter, "w1@h")
    beat(limiter, "w2@h", version="0.0.9", mode="retry", pool="gevent", concurrency=100)
    beat(limiter, "w3@h", silent=12)
    limiter.try_acquire("call-1:1", {"platform": "bilibili"}, worker="4711@h")
    limiter.try_acquire("old-1:1", {"platform": "bilibili"}, task="publish", worker="w0@h")


def over(limiter: Limiter, limit: str) -> bool:
    """Return whether a limit that was refused waits for its probe alone."""
    found = limiter.cooldowns.find(limit)
    return found is not None and found.seconds == 0
