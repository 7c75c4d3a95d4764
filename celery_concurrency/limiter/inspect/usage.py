"""Usage: of each limit the living tokens, the waiters, and how many it allows.

``holders.py`` says whose tokens these are, ``waiting.py`` who waits.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.inspect.counts import MAX_GROUPS, count_living, count_waiting
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import GLOBAL, WILDCARD, split_limit
from celery_concurrency.scripts.constants import SHARED_DIMENSIONS


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
    """All limits that are configured or in use, and platforms and task types with waiters.

    Accounts are there only while in use: a million of them may have waiters.

    Attributes:
        config_problem: what is wrong with a configuration written by hand, which is
            therefore not in force; None where nothing is.
        uncounted_groups: groups of waiters beyond ``counts.MAX_GROUPS``, which ``waiting``
            leaves out.
    """

    global_: LimitUsage
    platforms: dict[str, LimitUsage]
    task_types: dict[str, LimitUsage]
    accounts: dict[str, LimitUsage]
    dimensions: dict[str, dict[str, LimitUsage]]
    config_problem: str | None = None
    uncounted_groups: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as the API's JSON object, without what has its default value."""
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


def read_usage(keyspace: Keyspace, stored: Stored) -> Usage:
    """Count the living tokens and the waiters of limits.

    It costs a command for each living token and for each group of waiters, in batches
    between which Redis serves others: 10,000 groups take about a tenth of a second.

    Args:
        stored: the configuration in force.
    """
    config = stored.config
    # First in the order of the configuration, then what else is in use.
    configured = dict.fromkeys(_configured(config))
    # Expired ones as well: a token counts until it is taken back.
    tokens: Any = keyspace.redis.zrange(keyspace.keys.leases, 0, -1)
    waiting = count_waiting(keyspace, MAX_GROUPS)
    groups: Any = keyspace.redis.zcard(keyspace.keys.groups)
    others = _limits_held(keyspace, tokens) | {
        limit for limit in waiting if split_limit(limit)[0] in SHARED_DIMENSIONS
    }
    counts = count_living(keyspace, [*configured, *sorted(others - configured.keys())])

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
        uncounted_groups=max(0, groups - MAX_GROUPS),
    )


def _configured(config: Config) -> Iterator[str]:
    yield GLOBAL
    yield from (f"platform:{name}" for name in config.platform_max if name != WILDCARD)
    yield from (f"task_type:{name}" for name in config.task_type_max if name != WILDCARD)
    yield from config.paused


def _limits_held(keyspace: Keyspace, tokens: list[bytes]) -> set[str]:
    limits: set[str] = set()
    for _, held in keyspace.for_each(
        tokens, lambda pipe, token: pipe.hget(keyspace.keys.token(token.decode()), "limits")
    ):
        limits.update(json.loads(held or b"[]"))
    return limits
