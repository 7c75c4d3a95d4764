"""The route for health checks. What it checks is in ``limiter/inspect/health.py``."""

from flask import Response

from celery_concurrency.api.envelope import success
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.inspect.health import Health, read_health

routes = Routes()


@routes.add("GET", "/health", data=Health)
def get_health(limiter: Limiter) -> Response:
    """Return 200 while Redis answers."""
    return success(read_health(limiter.keyspace).model_dump())
