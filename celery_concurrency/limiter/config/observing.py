"""What a configuration only observes, and how that is put in force.

``limiter/inspect/observed.py`` has what was counted of it.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter.config.maximum import observed
from celery_concurrency.limiter.config.problems import MAX_DETAILS
from celery_concurrency.limiter.config.schema import Adaptive, Config, Rate
from celery_concurrency.limiter.limits import WILDCARD, split_limit


def observations(config: Config) -> Iterator[tuple[str, int | list[Rate] | Adaptive]]:
    """Yield each limit or wildcard with its maximum, rates or adaptive entry to observe."""
    for limit, maximum in config.maxima():
        if observed(maximum):
            yield limit, observed(maximum)
    for limit, rates in config.rates.items():
        if some := [rate for rate in rates if rate.mode == "observe"]:
            yield limit, some
    for limit, adaptive in config.adaptive.items():
        if adaptive.mode == "observe":
            yield limit, adaptive


def put_in_force(config: Config, limit: str) -> Config:
    """Return a configuration with what is observed of a limit or wildcard in force.

    Raises:
        InvalidConfig: nothing is, or not under this name.
    """
    names = dict.fromkeys(name for name, _ in observations(config))
    if limit not in names:
        shown = ", ".join(islice(names, MAX_DETAILS)) or "nothing"
        raise InvalidConfig(f"{limit} has nothing observed; observed are: {shown}")
    change: dict[str, Any] = {}
    for one in (one for name, one in observations(config) if name == limit):
        if isinstance(one, int):
            change |= _change_of_max(config, limit, one)
        elif isinstance(one, Adaptive):
            change["adaptive"] = {limit: {"mode": "enforce"}}
        else:
            change["rates"] = {limit: [_in_force(rate) for rate in config.rates[limit]]}
    return config.merged(change)


def _change_of_max(config: Config, limit: str, maximum: int) -> dict[str, Any]:
    """Return the change that gives a limit or wildcard this maximum."""
    dimension, name = split_limit(limit)
    if name is None:
        return {"global_max": maximum}
    if dimension == "account":
        whole = name == WILDCARD
        return {"account_max": maximum} if whole else {"account_overrides": {name: maximum}}
    if dimension in config.dimensions:
        change = {"max": maximum} if name == WILDCARD else {"overrides": {name: maximum}}
        return {"dimensions": {dimension: change}}
    return {f"{dimension}_max": {name: maximum}}


def _in_force(rate: Rate) -> dict[str, int]:
    return {"max": rate.max, "per": rate.per}
