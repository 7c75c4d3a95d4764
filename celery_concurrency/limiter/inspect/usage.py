"""Usage: of each limit the living tokens, the waiters, and how many it allows.

``holders.py`` says whose tokens these are, ``waiting.py`` who waits.
"""

import math
from collections import Counter
from collections.abc import Iterator
from heapq import nlargest
from itertools import chain, islice
from typing import Any, Final

from pydantic import BaseModel

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.inspect.adaptive import Limited, read_adaptive, read_moved
from celery_concurrency.limiter.inspect.counts import (
    MAX_GROUPS,
    count_living,
    limits_held,
    waiting_groups,
)
from celery_concurrency.limiter.inspect.moments import read_moments, read_shut
from celery_concurrency.limiter.inspect.observed import Observation, read_observed
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import GLOBAL, WILDCARD, other_of, split_limit
from celery_concurrency.limiter.stats.misnamed import MisnamedHeader, read_misnamed
from celery_concurrency.limiter.stats.names import are_full
from celery_concurrency.scripts.constants import NAMED_MOST, SHARED_DIMENSIONS

#: Configured limits that are listed, others that are, and living tokens that are read.
MAX_CONFIGURED: Final = 5_000
MAX_OTHERS: Final = 5_000
MAX_TOKENS: Final = 5_000
#: Misnamed headers that are told in a line each.
NOTED: Final = 3


class LimitUsage(Limited):
    """One limit, with its rates and its cool-down, and how it adapts (``adaptive.Limited``).

    Attributes:
        current: living tokens.
        max: how many the configuration allows, 0 for unlimited.
        paused: it admits nobody for now, whatever ``max`` says.
        waiting: tasks in the waiting room that count in it.
        waiting_since: when the one of these asked that has waited for longest, in Unix seconds of
            the Redis server; None where none waits. Of those with the same limits it is the next
            to go on: behind it, one of a lower priority may have waited longer.
        observed_max: how many it would allow by a maximum that is only observed; 0 where
            there is none.
    """

    paused: bool = False
    waiting: int = 0
    waiting_since: float | None = None
    observed_max: int = 0


class Usage(BaseModel):
    """All limits that are configured or in use, and platforms and task types with waiters.

    Of the user's own dimensions the fair one's names with waiters are there too.

    Accounts are there only where ``rates`` or ``adaptive`` names them and while in use, as a
    million of them may have waiters: while tokens are held, somebody waits for their moment,
    they cool down or are tried, or have fallen.

    Attributes:
        waiting_for_moment: tasks in the waiting room, one of whose limits is shut until a
            moment: by a rate, or as it cools down.
        observed: maxima and rates that are only observed, and what they would have done.
        config_problem: what is wrong with a configuration written by hand, which is
            therefore not in force; None where nothing is.
        uncounted_groups: groups of waiters beyond ``counts.MAX_GROUPS``, which ``waiting``
            leaves out.
        unlisted_limits: configured limits beyond ``MAX_CONFIGURED`` that are not in use, and
            others in use beyond ``MAX_OTHERS``: those with fewest waiters are left out. Of those
            that are shut until a moment, as many are looked at.
        unread_tokens: living tokens beyond ``MAX_TOKENS``: a limit that only these hold is
            left out, unless it is configured.
        unlisted_observed: entries beyond ``observed.MAX_OBSERVED``, which ``observed`` leaves out.
        statistics_full: limits that the configuration does not name count together in the
            statistics, unless they have a name there already.
        misnamed_headers: headers that are nearly tags, and so limit nothing.
    """

    global_: LimitUsage
    platforms: dict[str, LimitUsage]
    task_types: dict[str, LimitUsage]
    accounts: dict[str, LimitUsage]
    dimensions: dict[str, dict[str, LimitUsage]]
    waiting_for_moment: int = 0
    observed: list[Observation] = []
    config_problem: str | None = None
    uncounted_groups: int = 0
    unlisted_limits: int = 0
    unread_tokens: int = 0
    statistics_full: bool = False
    unlisted_observed: int = 0
    misnamed_headers: list[MisnamedHeader] = []

    def to_dict(self) -> dict[str, Any]:
        """Return it as the API's JSON object, without what has its default value."""
        data = self.model_dump(exclude_defaults=True)
        return {"global": data.pop("global_"), **data}

    def notes(self) -> Iterator[str]:
        """Yield in a line each what is not as one would think: what is left out, and a problem."""
        if self.unlisted_limits:
            yield f"{self.unlisted_limits} more limits are configured or in use, and not listed"
        if self.unlisted_observed:
            yield f"{self.unlisted_observed} more are observed but not listed"
        if self.unread_tokens:
            yield f"{self.unread_tokens} more tokens are held; what only these hold is not listed"
        if self.uncounted_groups:
            yield f"{self.uncounted_groups} more groups wait, and are not counted"
        if self.statistics_full:
            yield (
                f"{NAMED_MOST} limits or more have statistics: further ones, which the "
                f"configuration does not name, count together as {other_of('platform')} and "
                f"{other_of('task_type')}"
            )
        for one in self.misnamed_headers[:NOTED]:
            yield (
                f"the header {one.header!r} of task {one.task} ({one.count} times) limits "
                f"nothing: did you mean {one.tag!r}?"
            )
        if len(self.misnamed_headers) > NOTED:
            yield f"{len(self.misnamed_headers) - NOTED} more headers are nearly tags"
        if self.config_problem:
            yield f"the stored configuration is not in force: {self.config_problem}"

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

    It costs a command for each limit, each living token and each group of waiters, in batches
    between which Redis serves others: 10,000 take about a tenth of a second, and more of a
    kind are not read.

    Args:
        stored: the configuration in force.
    """
    config = stored.config
    # First in the order of the configuration, then what else is in use.
    named = dict.fromkeys(_configured(config))
    first = chain(islice(named, MAX_CONFIGURED), islice(config.paused, MAX_CONFIGURED))
    configured = dict.fromkeys(first)
    # Expired ones as well: a token counts until it is taken back.
    tokens: Any = keyspace.redis.zrange(keyspace.keys.leases, 0, MAX_TOKENS - 1)
    held: Any = keyspace.redis.zcard(keyspace.keys.leases)
    shut, more_shut = read_shut(keyspace, MAX_OTHERS)
    waiting, since, for_moment = _count_waiting(keyspace, set(shut))
    groups: Any = keyspace.redis.zcard(keyspace.keys.groups)
    listed_if_waiting = {*SHARED_DIMENSIONS, config.shares()[0]} - {"account"}
    others = limits_held(keyspace, tokens) | {
        limit for limit in waiting if split_limit(limit)[0] in listed_if_waiting
    }
    others |= set(read_moved(keyspace, config, MAX_OTHERS))
    others = (others | set(shut)) - configured.keys()
    listed = nlargest(MAX_OTHERS, sorted(others), waiting.__getitem__)
    counts = count_living(keyspace, [*configured, *sorted(listed)])
    moments = read_moments(keyspace, config, counts)
    adaptive = read_adaptive(keyspace, config, counts)
    observed, observations = read_observed(keyspace, config)
    paused = set(config.paused)
    shown = {
        limit: LimitUsage(
            current=count,
            max=config.max_of(limit),
            observed_max=config.observed_max_of(limit),
            paused=limit in paused,
            waiting=waiting[limit],
            waiting_since=since.get(limit),
            rates=moments.of(limit).rates,
            cooldown=moments.of(limit).cooldown,
            adaptive=adaptive.get(limit),
            bounds=config.bounds_of(limit),
            weight=config.weight_of(limit),
        )
        for limit, count in counts.items()
        if count or waiting[limit] or limit in configured or moments.of(limit).is_used
        or (limit in adaptive and adaptive[limit].has_fallen)
    }  # fmt: skip
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
        waiting_for_moment=for_moment,
        observed=observed,
        unlisted_observed=observations - len(observed),
        config_problem=stored.problem,
        uncounted_groups=max(0, groups - MAX_GROUPS),
        unlisted_limits=len((named.keys() | others) - counts.keys()) + more_shut,
        unread_tokens=max(0, held - MAX_TOKENS),
        statistics_full=are_full(keyspace),
        misnamed_headers=read_misnamed(keyspace),
    )


def _configured(config: Config) -> Iterator[str]:
    yield GLOBAL
    yield from (f"platform:{name}" for name in config.platform_max if name != WILDCARD)
    yield from (f"task_type:{name}" for name in config.task_type_max if name != WILDCARD)
    for named in (config.rates, config.adaptive, config.waiting):
        yield from (limit for limit in named if split_limit(limit)[1] != WILDCARD)
    yield from config.paused


def _count_waiting(
    keyspace: Keyspace, shut: set[str]
) -> tuple[Counter[str], dict[str, float], int]:
    """Return how many wait by limit, since when, and how many for one of those that are shut."""
    by_limit: Counter[str] = Counter()
    since: dict[str, float] = {}
    for_moment = 0
    for group in waiting_groups(keyspace, MAX_GROUPS):
        by_limit.update(dict.fromkeys(group.limits, group.waiters))
        for limit in group.limits:
            since[limit] = min(group.since, since.get(limit, math.inf))
        if not shut.isdisjoint(group.limits):
            for_moment += group.waiters
    return by_limit, since, for_moment
