"""The routes that show what goes on: usage and statistics."""

from __future__ import annotations

from flask import Response

from celery_concurrency.api.envelope import success
from celery_concurrency.api.models import StatsQuery, UsageData
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter

routes = Routes()


@routes.add("GET", "/usage", data=UsageData)
def get_usage(limiter: Limiter) -> Response:
    """Return how many living tokens each limit holds, beside what it allows."""
    return success(limiter.usage().to_dict())


@routes.add("GET", "/stats", data=dict[str, int], query=StatsQuery)
def get_stats(limiter: Limiter, query: StatsQuery) -> Response:
    """Return how often tokens were acquired and released, within a window."""
    return success(limiter.stats.window(query.window))
