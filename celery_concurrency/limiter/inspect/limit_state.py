"""Reads the state of limits: what each holds and allows, and what it does by itself.

``blocking.py`` says which of them block a waiter; the scripts decide by themselves.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.inspect.adaptive import read_adaptive
from celery_concurrency.limiter.inspect.blocking import LimitState, States
from celery_concurrency.limiter.inspect.counts import count_living
from celery_concurrency.limiter.inspect.moments import read_moments
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.weights import is_token, members, places_in, read_group

#: Of a limit that so many hold at most it is read when a run began there last.
FEW: Final = 20


def read_states(keyspace: Keyspace, config: Config, limits: Iterable[str]) -> States:
    """Return the state of these limits.

    Args:
        config: the configuration in force.
        limits: their names.
    """
    counts = count_living(keyspace, dict.fromkeys(limits))
    moments = read_moments(keyspace, config, counts)
    adaptive = read_adaptive(keyspace, config, counts)
    collecting: Any = keyspace.redis.hmget(keyspace.keys.collecting, "group", "token")
    group, token = collecting
    weight = read_group(group)[1]
    kept = keyspace.for_each(
        counts if token else (),
        lambda pipe, limit: pipe.zmscore(
            keyspace.keys.semaphore(limit), members(token.decode(), places_in(limit, weight))
        ),
    )
    collected = {limit: sum(score is not None for score in scores) for limit, scores in kept}

    def state(limit: str, current: int) -> LimitState:
        own = moments.of(limit)
        found = LimitState(
            limit=limit, current=current, max=config.max_of(limit),
            paused=limit in config.paused, full=False, kept=collected.get(limit, 0) > 0,
            rates=own.rates, cooldown=own.cooldown, adaptive=adaptive.get(limit),
            bounds=config.bounds_of(limit), weight=config.weight_of(limit),
        )  # fmt: skip
        shut = found.paused or found.has_no_place or own.shut(moments.now) is not None
        shut = shut or own.tried_by is not None
        found.full = config.enabled and shut
        return found

    by_limit = {limit: state(limit, current) for limit, current in counts.items()}
    begun = _read_begun(keyspace, by_limit.values())
    return States(
        by_limit, group.decode() if group else None, collected, moments.now, begun,
        enabled=config.enabled,
    )  # fmt: skip


def _read_begun(keyspace: Keyspace, states: Iterable[LimitState]) -> dict[str, float]:
    """Return when a run began last in those full limits that few hold; a command a token."""
    few = [one.limit for one in states if one.has_no_place and one.current <= FEW]
    held = [
        (limit, token.decode())
        for limit, tokens in keyspace.for_each(
            few, lambda pipe, limit: pipe.zrange(keyspace.keys.semaphore(limit), 0, FEW - 1)
        )
        for token in tokens
        if is_token(token.decode())
    ]
    begun: dict[str, float] = {}
    for (limit, _), since in keyspace.for_each(
        held, lambda pipe, one: pipe.hget(keyspace.keys.token(one[1]), "since")
    ):
        # A reservation was made lately, and has no such moment.
        moment = float(since) if since else math.inf
        begun[limit] = max(begun.get(limit, 0.0), moment)
    return begun
