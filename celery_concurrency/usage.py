"""Usage: how many living tokens each limit holds, beside what it allows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from redis import Redis

from celery_concurrency.config import Config
from celery_concurrency.configstore import Stored
from celery_concurrency.connection import asking
from celery_concurrency.limits import GLOBAL, WILDCARD, split_limit

T = TypeVar("T")

#: Commands sent in one trip: Redis serves others in between.
BATCH: Final = 500


class LimitUsage(BaseModel):
    """One limit.

    Attributes:
        current: living tokens.
        max: how many it allows, 0 for unlimited.
        paused: it admits nobody for now, whatever ``max`` says.
    """

    current: int
    max: int
    paused: bool = False


class Usage(BaseModel):
    """All limits that are configured or in use; accounts only while in use.

    Attributes:
        config_problem: what is wrong with a configuration written by hand,
            which is not in force therefore; None where nothing is.
    """

    global_: LimitUsage
    platforms: dict[str, LimitUsage]
    task_types: dict[str, LimitUsage]
    accounts: dict[str, LimitUsage]
    dimensions: dict[str, dict[str, LimitUsage]]
    config_problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as the JSON object of the API; what is as ever is left out."""
        data = self.model_dump(exclude_defaults=True)
        return {"global": data.pop("global_"), **data}


def read_usage(redis: Redis, prefix: str, stored: Stored) -> Usage:
    """Count the living tokens of every limit that is configured or in use.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys.
        stored: the configuration in force.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    config = stored.config
    # In the order of the configuration, which is the user's own; then what else is in use.
    configured = dict.fromkeys(_configured(config))
    with asking():
        seconds, micros = redis.time()
        now = f"({seconds}.{micros:06d}"
        tokens: Any = redis.zrangebyscore(f"{prefix}:leases", now, "+inf")
        in_use = _limits_held(redis, prefix, tokens)
        counts = _count(redis, prefix, now, [*configured, *sorted(in_use - configured.keys())])

    paused = set(config.paused)
    shown = {
        limit: LimitUsage(current=count, max=config.max_of(limit), paused=limit in paused)
        for limit, count in counts.items()
        if count or limit in configured
    }
    by_dimension: dict[str, dict[str, LimitUsage]] = {name: {} for name in config.dimensions}
    for limit, usage in shown.items():
        dimension, name = split_limit(limit)
        if name is not None:
            by_dimension.setdefault(dimension, {})[name] = usage
    return Usage(
        global_=shown[GLOBAL],
        platforms=by_dimension.pop("platform", {}),
        task_types=by_dimension.pop("task_type", {}),
        accounts=by_dimension.pop("account", {}),
        dimensions=by_dimension,
        config_problem=stored.problem,
    )


def _configured(config: Config) -> Iterator[str]:
    yield GLOBAL
    yield from (f"platform:{name}" for name in config.platform_max if name != WILDCARD)
    yield from (f"task_type:{name}" for name in config.task_type_max if name != WILDCARD)
    yield from config.paused


def _limits_held(redis: Redis, prefix: str, tokens: list[bytes]) -> set[str]:
    limits: set[str] = set()
    for some in _batches(tokens):
        pipe = redis.pipeline(transaction=False)
        for token in some:
            pipe.hget(f"{prefix}:token:{token.decode()}", "limits")
        for held in pipe.execute():
            limits.update(json.loads(held or b"[]"))
    return limits


def _count(redis: Redis, prefix: str, now: str, limits: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for some in _batches(limits):
        pipe = redis.pipeline(transaction=False)
        for limit in some:
            pipe.zcount(f"{prefix}:semaphore:{limit}", now, "+inf")
        counts.update(zip(some, pipe.execute(), strict=True))
    return counts


def _batches(items: list[T]) -> Iterable[list[T]]:
    return (items[i : i + BATCH] for i in range(0, len(items), BATCH))
