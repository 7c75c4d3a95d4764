"""The routes of the configuration (``limiter/config/store.py``) and its history."""

import re
from typing import Any

from flask import Response, request

from celery_concurrency.api.author import author
from celery_concurrency.api.envelope import success
from celery_concurrency.api.models import Actions, ConfigChange, ConfigData, History, Rollback
from celery_concurrency.api.routes import Routes, validated
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.actions import read_actions
from celery_concurrency.limiter.config.store import Stored

routes = Routes()


@routes.add("GET", "/config", data=ConfigData, versioned=True)
def get_config(limiter: Limiter) -> Response:
    """Return the configuration in force."""
    return _answer(limiter.config.sync())


@routes.add("PUT", "/config", data=ConfigData, body=ConfigChange, versioned=True)
def put_config(limiter: Limiter, body: Any) -> Response:
    """Change the fields in the body, at once.

    Maps merge by key, and null removes an entry from a map.
    """
    return _answer(limiter.config.update(body, author(), _expected_versions()), "updated")


@routes.add("POST", "/reset", data=ConfigData, versioned=True)
def reset_config(limiter: Limiter) -> Response:
    """Put the default configuration in force."""
    return _answer(limiter.config.reset(author("reset"), _expected_versions()), "reset")


@routes.add("GET", "/config/history", data=History)
def get_history(limiter: Limiter) -> Response:
    """Return the last 100 versions, the newest first: when, by whom, and what they changed.

    It also returns the defaults, which a reset would put in force.
    """
    versions = [version.model_dump() for version in limiter.config.history()]
    return success({"versions": versions, "defaults": limiter.config.defaults().to_dict()})


@routes.add("GET", "/actions", data=Actions)
def get_actions(limiter: Limiter) -> Response:
    """Return who released tokens and cancelled waiting tasks: the last 100, the newest first."""
    return success({"actions": [one.model_dump() for one in read_actions(limiter.keyspace)]})


@routes.add(
    "POST", "/config/rollback", data=ConfigData, body=Rollback, versioned=True, refusals=(404,)
)
def rollback_config(limiter: Limiter, body: Any) -> Response:
    """Put an earlier version's configuration in force again, as a new version."""
    version = validated(Rollback, body, "invalid_body").version
    stored = limiter.config.rollback(version, author("rollback"), _expected_versions())
    return _answer(stored, "rolled_back" if stored.is_new else "same_version")


def _expected_versions() -> frozenset[int] | None:
    """Return the versions that ``If-Match`` accepts as the one in force; None for any."""
    if "If-Match" not in request.headers or request.if_match.star_tag:
        return None
    tags = request.if_match.as_set()
    return frozenset(int(tag) for tag in tags if re.fullmatch(r"[0-9]{1,19}", tag or ""))


def _answer(stored: Stored, message: str | None = None) -> Response:
    response = success(stored.config.to_dict(), message, [one.detail() for one in stored.doubts])
    response.set_etag(str(stored.version))
    return response
