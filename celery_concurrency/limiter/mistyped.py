"""Mistyped names: limits that are named for the first time, and may be misspelt.

A name may be any text, so none is refused; whoever gave it gets a warning. ``config/schema.py``
has what is refused.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from celery_concurrency.limiter.config.problems import MAX_DETAILS, did_you_mean
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.inspect.counts import limits_held
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import BUILTIN_DIMENSIONS, GLOBAL, WILDCARD, split_limit
from celery_concurrency.limiter.stats.names import read_names
from celery_concurrency.limiter.weights import read_group
from celery_concurrency.text import closest, printable

#: Living tokens, and groups of waiters, whose limits are read as known names.
MAX_READ: Final = 1_000
#: Limits of one change that are checked: it may name thousands.
MAX_LOOKED_AT: Final = 50


@dataclass(frozen=True, slots=True)
class Doubt:
    """A limit that nobody has named before.

    Attributes:
        field: where it was named, such as ``"platform_max.douyn"``.
        limit: its name.
        meant: a limit with a similar name, which may be the one meant; None if there is none.
    """

    field: str
    limit: str
    meant: str | None

    def __str__(self) -> str:
        meant = did_you_mean(self.meant)
        return f"no configuration lists {printable(self.limit)}, and no run uses it{meant}"

    def detail(self) -> dict[str, str]:
        """Return it in the form of the API's answers."""
        return {"field": printable(self.field), "problem": str(self)}


def doubts_of_change(keyspace: Keyspace, before: Config, after: Config) -> list[Doubt]:
    """Return the limits that this change names for the first time; ``MAX_DETAILS`` at most.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    old = dict(_named(before))
    # In a dimension that this change adds, nobody can have named anything before.
    known = BUILTIN_DIMENSIONS | before.dimensions.keys()
    new = {
        limit: field
        for limit, field in _named(after)
        if limit not in old and split_limit(limit)[0] in known
    }
    return _doubts(keyspace, old, new) if new else []


def doubts_of_limit(keyspace: Keyspace, config: Config, field: str, limit: str) -> list[Doubt]:
    """Return the doubt about one limit, if there is one. Raises what ``doubts_of_change`` does."""
    old = dict(_named(config))
    return [] if limit == GLOBAL or limit in old else _doubts(keyspace, old, {limit: field})


def _doubts(keyspace: Keyspace, listed: Collection[str], new: Mapping[str, str]) -> list[Doubt]:
    used = _used(keyspace)
    names = _by_dimension({*listed, *used})
    looked_at = [limit for limit in islice(new, MAX_LOOKED_AT) if limit not in used]
    held = keyspace.for_each(
        looked_at, lambda pipe, limit: pipe.exists(keyspace.keys.semaphore(limit))
    )
    found = (Doubt(new[one], one, _meant_by(one, names)) for one, is_held in held if not is_held)
    # A new account is nothing unusual: warn only if another has a similar name.
    told = (one for one in found if one.meant or split_limit(one.limit)[0] != "account")
    return list(islice(told, MAX_DETAILS))


def _used(keyspace: Keyspace) -> set[str]:
    """Return limits that runs use, of the last day if the statistics name them."""
    tokens: Any = keyspace.redis.zrange(keyspace.keys.leases, 0, MAX_READ - 1)
    groups: Any = keyspace.redis.zrange(keyspace.keys.groups, 0, MAX_READ - 1)
    waiting = (limit for group in groups for limit in read_group(group)[0])
    return {*read_names(keyspace), *limits_held(keyspace, tokens), *waiting} - {GLOBAL}


def _by_dimension(limits: Iterable[str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for limit in sorted(limits):
        dimension, name = split_limit(limit)
        if name:
            names.setdefault(dimension, []).append(name)
    return names


def _meant_by(limit: str, names: Mapping[str, Collection[str]]) -> str | None:
    dimension, name = split_limit(limit)
    close = closest(name or "", names.get(dimension, ()))
    if close:
        return f"{dimension}:{close}"
    # Or it has its dimension twice, as platform:platform:douyn has.
    if name and split_limit(name)[0] in names:
        return _meant_by(name, names) or name
    # Or the name is right, but belongs to another dimension.
    return next((f"{other}:{name}" for other, known in names.items() if name in known), None)


def _named(config: Config) -> Iterator[tuple[str, str]]:
    """Yield each limit that a configuration names, with its field."""
    for limit, field in _all_named(config):
        if limit != GLOBAL and split_limit(limit)[1] != WILDCARD:
            yield limit, field


def _all_named(config: Config) -> Iterator[tuple[str, str]]:
    maps: dict[str, tuple[str, Iterable[str]]] = {
        "platform": ("platform_max", config.platform_max),
        "task_type": ("task_type_max", config.task_type_max),
        "account": ("account_overrides", config.account_overrides),
    }
    for dimension, own in config.dimensions.items():
        maps[dimension] = f"dimensions.{dimension}.overrides", own.overrides
    for dimension, (field, names) in maps.items():
        yield from ((f"{dimension}:{name}", f"{field}.{name}") for name in names)
    yield from ((limit, "paused") for limit in config.paused)
    yield from ((limit, f"rates.{limit}") for limit in config.rates)
    yield from ((limit, f"adaptive.{limit}") for limit in config.adaptive)
    yield from ((limit, f"waiting.{limit}") for limit in config.waiting)
