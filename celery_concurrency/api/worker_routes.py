"""The route of the workers (``limiter/inspect/workers.py``)."""

from flask import Response

from celery_concurrency.api.envelope import success
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.inspect.workers import Workers, read_workers

routes = Routes()


@routes.add("GET", "/workers", data=Workers)
def get_workers(limiter: Limiter) -> Response:
    """Return who is alive, since when each was last heard of, and what it holds.

    Silent workers come first, until their tokens are taken back; last those that hold tokens and
    say nothing of themselves: programs, and workers of an earlier version.
    """
    return success(read_workers(limiter.keyspace).model_dump())
