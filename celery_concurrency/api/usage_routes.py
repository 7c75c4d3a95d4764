"""The routes of usage (``limiter/inspect/usage.py``) and statistics (``limiter/stats/``)."""

from flask import Response

from celery_concurrency.api.envelope import success
from celery_concurrency.api.models import HistoryQuery, StatsQuery, UsageData
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.stats.backlog import Backlog, read_backlog
from celery_concurrency.limiter.stats.history import StatsHistory, read_stats_history

routes = Routes()


@routes.add("GET", "/usage", data=UsageData)
def get_usage(limiter: Limiter) -> Response:
    """Return how many tokens each limit holds, and how many it allows."""
    return success(limiter.usage().to_dict())


@routes.add("GET", "/stats", data=dict[str, int], query=StatsQuery)
def get_stats(limiter: Limiter, query: StatsQuery) -> Response:
    """Return how often tokens were acquired and released, within a window."""
    return success(limiter.stats.window(query.window))


@routes.add("GET", "/stats/history", data=StatsHistory, query=HistoryQuery)
def get_stats_history(limiter: Limiter, query: HistoryQuery) -> Response:
    """Return the statistics interval by interval: counters, wait times and hold times.

    Wait and hold times are kept for each five minutes, so a resolution of 1m has only counters.
    """
    found = read_stats_history(limiter.keyspace, query.resolution, query.window)
    return success(found.model_dump())


@routes.add("GET", "/stats/backlog", data=Backlog)
def get_backlog(limiter: Limiter) -> Response:
    """Return how many tasks waited for each limit, minute by minute, in the last hour."""
    return success(read_backlog(limiter.keyspace).model_dump())
