"""Weights: how many places a run takes in a limit.

A run of weight n takes n places in each limit that many kinds of work share (``global``, platform,
task type), and one in its others. ``scripts/lib/places.lua`` says how Redis stores that.
"""

import json
import re
from collections.abc import Sequence
from typing import Final

from celery_concurrency.errors import InvalidTag
from celery_concurrency.limiter.limits import GLOBAL, split_limit
from celery_concurrency.scripts.constants import SHARED_DIMENSIONS, WEIGHT_MOST

_SHARED: Final = (GLOBAL, *SHARED_DIMENSIONS)
_MEMBER: Final = re.compile(r"#\d+\Z")


def weight_value(name: str, value: object) -> int:
    """Return a weight that is one.

    Args:
        name: what it is called, for the error.
        value: an integer from 1 to ``WEIGHT_MOST``; not a bool.

    Raises:
        InvalidTag: it is anything else; the message names it and shows the value.
    """
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or not 1 <= value <= WEIGHT_MOST:  # type: ignore[operator]  # an integer
        raise InvalidTag(f"{name!r} is {value!r}: make it an integer from 1 to {WEIGHT_MOST}")
    return value  # type: ignore[return-value]


def places_in(limit: str, weight: int) -> int:
    """Return how many places a run of this weight takes in a limit."""
    return weight if split_limit(limit)[0] in _SHARED else 1


def with_weight(limits: Sequence[str], weight: int) -> list[str | int]:
    """Return a run's limits, and its weight behind them if that is more than 1."""
    return [*limits, weight] if weight > 1 else [*limits]


def without_weight(found: Sequence[str | int]) -> tuple[list[str], int]:
    """Return the limits and the weight that ``with_weight`` put together."""
    limits = [one for one in found if isinstance(one, str)]
    return limits, int(found[-1]) if len(limits) < len(found) else 1


def read_group(text: str | bytes | None) -> tuple[list[str], int]:
    """Return the limits and the weight of a group, or of a token by its record."""
    return without_weight(json.loads(text or b"[]"))


def members(token: str, places: int) -> list[str]:
    """Return the members by which a token holds so many places in a semaphore."""
    return [token, *(f"{token}#{number}" for number in range(2, places + 1))]


def is_token(member: str) -> bool:
    """Return whether a member of a semaphore is a token, not one more place of a heavy one."""
    return _MEMBER.search(member) is None
