"""The routes of adaptive limits (``limiter/adaptive.py``): their state and their history.

The configuration says which limits are adaptive, and their ranges: ``config_routes.py``.
"""

from typing import Any

from flask import Response, abort
from pydantic import TypeAdapter

from celery_concurrency.api.author import author, log_action
from celery_concurrency.api.envelope import failure, success
from celery_concurrency.api.models import AdaptiveList, AdaptiveQuery
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.adaptive import AdaptiveLimit
from celery_concurrency.limiter.inspect.adaptive_history import (
    AdaptiveHistory,
    read_adaptive_history,
)
from celery_concurrency.limiter.limits import WILDCARD, split_limit
from celery_concurrency.text import printable

routes = Routes()


@routes.add("GET", "/adaptive", data=AdaptiveList)
def get_adaptive(limiter: Limiter) -> Response:
    """Return the adaptive limits that the configuration names or that have moved."""
    limits, total = limiter.adaptive.read()
    return success(TypeAdapter(AdaptiveList).dump_python(AdaptiveList(limits=limits, total=total)))


@routes.add(
    "GET", "/adaptive/history", data=AdaptiveHistory, query=AdaptiveQuery, refusals=(404,)
)  # fmt: skip
def get_adaptive_history(limiter: Limiter, query: AdaptiveQuery) -> Response:
    """Return the last 24 hours of an adaptive limit: its moves, a sample a minute, refusals.

    Refusals are counted for each platform and task type, and for global over all runs. For other
    limits only the moves show them.
    """
    found = _found(limiter, query.limit)
    return success(read_adaptive_history(limiter.keyspace, limiter.adaptive, found).model_dump())


@routes.add("DELETE", "/adaptive", data=AdaptiveLimit, query=AdaptiveQuery, refusals=(404,))
def reset_adaptive(limiter: Limiter, query: AdaptiveQuery) -> Response:
    """Put an adaptive limit back to its maximum at once, and return it."""
    by, limit = author(), query.limit
    _found(limiter, limit)
    moved = limiter.adaptive.reset(limit, by.operator or "")
    if moved:
        log_action(
            by, "adaptive limit reset by operator", "adaptive limit %s reset", limit, limit=limit
        )  # fmt: skip
    # Its entry may be gone by now.
    stands: Any = TypeAdapter(AdaptiveLimit).dump_python(_found(limiter, limit))
    return success(stands, "adaptive_reset" if moved else "adaptive_at_max")


def _found(limiter: Limiter, limit: str) -> AdaptiveLimit:
    """Return an adaptive limit, or answer 404 with the change that would make it one."""
    if split_limit(limit)[1] == WILDCARD:
        problem = f"{printable(limit)!r} is a wildcard: name one limit"
        abort(failure(404, "not_adaptive", [{"field": "limit", "problem": problem}]))
    found = limiter.adaptive.find(limit)
    if found is None:
        problem = (
            f"{printable(limit)!r} has no entry in the configuration's adaptive: PUT /config "
            f'{{"adaptive": {{"{printable(limit)}": {{"min": 1, "max": 10}}}}}} makes one'
        )
        abort(failure(404, "not_adaptive", [{"field": "limit", "problem": problem}]))
    return found
