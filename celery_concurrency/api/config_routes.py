"""The routes of the configuration."""

from __future__ import annotations

from typing import Any

from flask import Response

from celery_concurrency.api.envelope import success
from celery_concurrency.api.models import ConfigChange
from celery_concurrency.api.routes import Routes
from celery_concurrency.config import Config
from celery_concurrency.configstore import Stored
from celery_concurrency.limiter import Limiter

routes = Routes()


@routes.add("GET", "/config", data=Config)
def get_config(limiter: Limiter) -> Response:
    """Return the configuration in force."""
    return _answer(limiter.config.sync())


@routes.add("PUT", "/config", data=Config, body=ConfigChange)
def put_config(limiter: Limiter, body: Any) -> Response:
    """Change what the body names, at once.

    Maps merge by key, and null takes an entry out of a map.
    """
    return _answer(limiter.config.update(body), "updated")


@routes.add("POST", "/reset", data=Config)
def reset_config(limiter: Limiter) -> Response:
    """Put the default configuration in force."""
    return _answer(limiter.config.reset(), "reset")


def _answer(stored: Stored, message: str | None = None) -> Response:
    return success(stored.config.to_dict(), message)
