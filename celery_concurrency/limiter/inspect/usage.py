"""Usage: how many living tokens each limit holds and how many wait for it, beside what it allows.

Whose tokens these are is in ``holders.py``, who waits in ``waiting.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from redis import Redis

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.connection import asking
from celery_concurrency.limiter.inspect.counts import (
    MAX_GROUPS,
    batches,
    count_living,
    count_more_groups,
    count_waiting,
)
from celery_concurrency.limiter.limits import GLOBAL, WILDCARD, split_limit
from celery_concurrency.scripts.constants import SHARED


class LimitUsage(BaseModel):
    """One limit.

    Attributes:
        current: living tokens.
        max: how many it allows, 0 for unlimited.
        paused: it admits nobody for now, whatever ``max`` says.
        waiting: tasks in the waiting room that count in it.
    """

    current: int
    max: int
    paused: bool = False
    waiting: int = 0


class Usage(BaseModel):
    """All limits that are configured or in use, and platforms and task types that are waited for.

    Accounts only while in use: a million may have somebody waiting.

    Attributes:
        config_problem: what is wrong with a configuration written by hand,
            which is not in force therefore; None where nothing is.
        uncounted_groups: groups of waiters with the same limits beyond
            ``counting.MAX_GROUPS``, who are not in ``waiting``.
    """

    global_: LimitUsage
    platforms: dict[str, LimitUsage]
    task_types: dict[str, LimitUsage]
    accounts: dict[str, LimitUsage]
    dimensions: dict[str, dict[str, LimitUsage]]
    config_problem: str | None = None
    uncounted_groups: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as the JSON object of the API; what is as ever is left out."""
        data = self.model_dump(exclude_defaults=True)
        return {"global": data.pop("global_"), **data}

    def limits(self) -> Iterator[tuple[str, LimitUsage]]:
        """Return each limit's whole name and its use, ``global`` first."""
        yield GLOBAL, self.global_
        for dimension, limits in (
            ("platform", self.platforms),
            ("task_type", self.task_types),
            ("account", self.accounts),
            *self.dimensions.items(),
        ):
            for name, limit in sorted(limits.items()):
                yield f"{dimension}:{name}", limit


def read_usage(redis: Redis, prefix: str, stored: Stored) -> Usage:
    """Count the living tokens and the waiters of limits.

    It costs a command for each living token, and one for each group of waiters with
    the same limits (``counting.count_waiting``), in batches between which Redis
    serves others: 10,000 groups take about a tenth of a second.

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
        # All of them: one that nobody renews counts until it is taken back.
        tokens: Any = redis.zrange(f"{prefix}:leases", 0, -1)
        waiting = count_waiting(redis, prefix, MAX_GROUPS)
        uncounted = count_more_groups(redis, prefix)
        others = _limits_held(redis, prefix, tokens) | {
            limit for limit in waiting if split_limit(limit)[0] in SHARED
        }
        counts = count_living(redis, prefix, [*configured, *sorted(others - configured.keys())])

    paused = set(config.paused)
    shown = {
        limit: LimitUsage(
            current=count,
            max=config.max_of(limit),
            paused=limit in paused,
            waiting=waiting[limit],
        )
        for limit, count in counts.items()
        if count or waiting[limit] or limit in configured
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
        uncounted_groups=uncounted,
    )


def _configured(config: Config) -> Iterator[str]:
    yield GLOBAL
    yield from (f"platform:{name}" for name in config.platform_max if name != WILDCARD)
    yield from (f"task_type:{name}" for name in config.task_type_max if name != WILDCARD)
    yield from config.paused


def _limits_held(redis: Redis, prefix: str, tokens: list[bytes]) -> set[str]:
    limits: set[str] = set()
    for some in batches(tokens):
        pipe = redis.pipeline(transaction=False)
        for token in some:
            pipe.hget(f"{prefix}:token:{token.decode()}", "limits")
        for held in pipe.execute():
            limits.update(json.loads(held or b"[]"))
    return limits
