"""What taking and giving back costs: beside two calls of a script that does nothing, and peers.

All take turns on one server, nobody else asking, some hundred pairs each; a figure is
the median of the ratios of all rounds, so that what else the machine does at the
time is in both parts of each.
"""

from __future__ import annotations

import importlib
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

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
    costs = _in_turns(redis, contenders, rounds)
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


def _in_turns(redis: Redis, contenders: dict[str, Pair], rounds: int) -> dict[str, list[Cost]]:
    """Measure all of them so many times, by turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, pair in contenders.items():
            cost = _cost(redis, pair)
            if number:  # the first warms up
                costs[name].append(cost)
    return costs


def _floor(redis: Redis) -> Pair:
    sha = redis.script_load("return 1")

    def pair() -> None:
        redis.evalsha(sha, 1, "floor")
        redis.evalsha(sha, 1, "floor")

    return pair


def _ours(
    url: str, prefix: str = "concurrency", changes: dict[str, Any] | None = None, of: Any = None
) -> Pair:
    """Return our pair.

    Args:
        changes: of the configuration.
        of: the class of another version, instead of this one's.
    """
    redis = connect(url)
    limiter = (of or Limiter)(redis, prefix)
    redis.set(f"{prefix}:epoch", 1)  # a server that has been in use
    limiter.config.update(changes or {"timeout": 3600})
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


def rateless(
    url: str, rounds: int, before: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return what rates cost a pair that needs none of them.

    Args:
        url: of an empty server.
        rounds: how often they take turns.
        before: a checkout of another version to hold this one against; None for none.
    """
    rates = {"tenant:*": [{"max": 1, "per": 30}], "vendor:*": [{"max": 60, "per": 60}]}
    dimensions = {name: {"max": 0} for name in ("tenant", "vendor")}
    contenders = {
        "without": _ours(url, "without", {"dimensions": dimensions}),
        "with": _ours(url, "with", {"dimensions": dimensions, "rates": rates}),
    }
    if before:
        of = limiter_of(before)
        contenders["before"] = _ours(url, "before", {"dimensions": dimensions}, of)
    costs = _in_turns(Redis.from_url(url), contenders, rounds)
    found: dict[str, Any] = {
        "rateless_pair": _ratio(costs, "with", "without", "client"),
        "rateless_cpu": _ratio(costs, "with", "without", "server"),
    }
    if before:
        for name in ("without", "with"):
            found[f"rateless_before_{name}"] = {
                of: _ratio(costs, name, "before", of) for of in ("client", "server")
            }
    say(f"  {found}")
    return found


def limiter_of(checkout: Path) -> Any:
    """Import the limiter of another version beside this one's; return its class."""
    package = "celery_concurrency"
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_of(name, package)}
    sys.path.insert(0, str(checkout))
    try:
        limiter = importlib.import_module(f"{package}.limiter").Limiter
        scripts = importlib.import_module(f"{package}.scripts")
        # Read now: later it would find ours under its name.
        for verb in Path(scripts.__file__).parent.glob("*.lua"):
            scripts.source(verb.stem)
    finally:
        sys.path.remove(str(checkout))
        for name in [name for name in sys.modules if _is_of(name, package)]:
            del sys.modules[name]
        sys.modules.update(ours)
    return limiter


def _is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


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
