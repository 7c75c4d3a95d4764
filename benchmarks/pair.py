"""What taking and giving back costs: beside two calls of a script that does nothing, and peers.

All take turns on one server, nobody else asking, some hundred pairs each; a figure is
the median of the ratios of all rounds, so that what else the machine does at the
time is in both parts of each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from statistics import median

from redis import Redis

from benchmarks.peers import Pair, peers
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.stats.durations import BATCH

FLOOR = "two calls of an empty script"
OURS = "celery-concurrency, four limits and statistics"
#: Pairs of each contender in a round.
PAIRS = 400
#: Accounts with a maximum of their own, in a large configuration.
OVERRIDES = 15_000
TAGS = {"platform": "douyin", "account": "acc123", "type": "publish"}


@dataclass
class Cost:
    """Of a pair, in microseconds: the client's median, and what the server computed."""

    client: float
    server: float


def measure(url: str, rounds: int, say: Callable[[str], None]) -> dict[str, object]:
    """Return the figures of the pair, and the costs of all that took part.

    Args:
        url: of an empty server.
        rounds: how often they take turns.
    """
    redis = Redis.from_url(url)  # as a user would make it
    contenders = {FLOOR: _floor(redis), OURS: _ours(url), **peers(redis, url)}
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, pair in contenders.items():
            cost = _cost(redis, pair)
            if number:  # the first warms up
                costs[name].append(cost)
    found = {
        "pair_vs_floor": _ratio(costs, OURS, FLOOR, "client"),
        "pair_vs_redis_lock": _ratio(costs, OURS, "redis-py Lock", "client"),
        "pair_cpu_vs_floor": _ratio(costs, OURS, FLOOR, "server"),
        "pair_costs_us": {
            name: {
                "client": round(median(one.client for one in all_), 1),
                "server": round(median(one.server for one in all_), 1),
            }
            for name, all_ in costs.items()
        },
    }
    for name, cost in found["pair_costs_us"].items():
        say(f"  {name}: {cost['client']} us, {cost['server']} us of them the server's")
    return found


def _floor(redis: Redis) -> Pair:
    sha = redis.script_load("return 1")

    def pair() -> None:
        redis.evalsha(sha, 1, "floor")
        redis.evalsha(sha, 1, "floor")

    return pair


def _ours(url: str) -> Pair:
    redis = connect(url)
    limiter = Limiter(redis)
    redis.set("concurrency:epoch", 1)  # a server that has been in use
    limiter.config.sync()
    task = str(uuid.uuid4())
    numbers = count()

    def pair() -> None:
        number = next(numbers)
        token = f"{task}:{number}"
        limiter.try_acquire(token, TAGS, task="proj.tasks.publish", worker="w1@host", lease=30)
        limiter.release(token, done=True)
        if number % BATCH == 0:
            limiter.durations.tally()  # as a worker's thread does

    return pair


def _cost(redis: Redis, pair: Pair) -> Cost:
    """Measure one contender's turn."""
    seconds = []
    before = _cpu(redis)
    for _ in range(PAIRS):
        begin = time.perf_counter()
        pair()
        seconds.append(time.perf_counter() - begin)
    return Cost(median(seconds) * 1e6, (_cpu(redis) - before) / PAIRS * 1e6)


def _cpu(redis: Redis) -> float:
    info = redis.info("cpu")
    return float(info["used_cpu_sys"] + info["used_cpu_user"])


def _ratio(costs: dict[str, list[Cost]], one: str, other: str, of: str) -> float:
    pairs = zip(costs[one], costs[other], strict=True)
    return round(median(getattr(a, of) / getattr(b, of) for a, b in pairs), 3)


def config_growth(redis: Redis, rounds: int) -> float:
    """Return what an acquire costs with a configuration of 300 KB over one of 0.3 KB."""
    limiters = {}
    for name, overrides in (("small", 0), ("large", OVERRIDES)):
        limiter = limiters[name] = Limiter(redis, name)
        redis.set(f"{name}:epoch", 1)
        accounts = {f"account-{number:06}": 3 for number in range(overrides)}
        limiter.config.update({"account_overrides": accounts})
    assert redis.strlen("large:config") > 300_000
    costs: dict[str, list[float]] = {name: [] for name in limiters}
    for number in range(rounds):
        for name, limiter in limiters.items():
            seconds = []
            for each in range(PAIRS):
                token = f"t:{number}.{each}"
                begin = time.perf_counter()
                limiter.try_acquire(token, TAGS, lease=30)
                seconds.append(time.perf_counter() - begin)
                limiter.release(token)
            costs[name].append(median(seconds))
    pairs = zip(costs["large"], costs["small"], strict=True)
    return round(median(large / small for large, small in pairs), 3)
