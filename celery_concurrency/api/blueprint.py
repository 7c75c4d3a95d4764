"""The seed's five routes, as a blueprint that stays small in the user's Flask app."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from celery import Celery
from flask import Blueprint, Flask, Request, Response, request
from werkzeug.exceptions import HTTPException, UnsupportedMediaType

from celery_concurrency.api.envelope import failure, success
from celery_concurrency.apps import limiter_of
from celery_concurrency.config import MAX_JSON_BYTES, parse_json
from celery_concurrency.configstore import Stored
from celery_concurrency.errors import ConfigConflict, InvalidConfig, LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.stats import DEFAULT_WINDOW, WINDOWS

logger = logging.getLogger(__name__)

URL_PREFIX: Final = "/api/v1/concurrency"

#: What an HTTP error is called in the envelope.
_CODES: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}


def create_blueprint(
    celery_app: Celery, authorize: Callable[[Request], object] | None = None
) -> Blueprint:
    """Return the API as a blueprint, under ``/api/v1/concurrency``.

    Args:
        celery_app: whose limits.
        authorize: is given each request; what it answers false to gets a 403. It
            may also ``abort`` with an answer of its own.

    Raises:
        ImproperlyConfigured: the Celery app's settings are wrong.
    """
    limiter_of(celery_app)  # a wrong setting is told now, not with the first request
    blueprint = Blueprint("concurrency", __name__, url_prefix=URL_PREFIX)

    def limiter() -> Limiter:
        # Asked for each time: the server may fork after this.
        return limiter_of(celery_app)

    @blueprint.before_request
    def check_authorized() -> Response | None:
        if authorize is not None and not authorize(request):
            return failure(403, "forbidden")
        return None

    @blueprint.get("/config")
    def get_config() -> Response:
        return success(_shown(limiter().config.sync()))

    @blueprint.put("/config")
    def put_config() -> Response:
        return success(_shown(limiter().config.update(_json_body())), "updated")

    @blueprint.post("/reset")
    def reset_config() -> Response:
        return success(_shown(limiter().config.reset()), "reset")

    @blueprint.get("/usage")
    def get_usage() -> Response:
        return success(limiter().usage().to_dict())

    @blueprint.get("/stats")
    def get_stats() -> Response:
        window = request.args.get("window", DEFAULT_WINDOW)
        if window not in WINDOWS:
            problem = f"{window[:40]!r} is none of {', '.join(WINDOWS)}"
            return failure(400, "invalid_window", [{"field": "window", "problem": problem}])
        return success(limiter().stats.window(window))

    _answer_errors(blueprint)
    _answer_the_rest(blueprint)
    return blueprint


def create_app(celery_app: Celery) -> Flask:
    """Return the admin app: the API, with its errors everywhere.

    Raises:
        ImproperlyConfigured: the Celery app's settings are wrong.
    """
    app = Flask("celery_concurrency", static_folder=None)
    app.register_blueprint(create_blueprint(celery_app))
    app.register_error_handler(HTTPException, _on_http_error)
    return app


def _shown(stored: Stored) -> dict[str, Any]:
    return stored.config.to_dict()


def _json_body() -> Any:
    """Return the request's JSON value; a body that is none of ours is refused.

    Raises:
        HTTPException: 415 or 413.
        InvalidConfig: it is no JSON.
    """
    if not request.is_json:
        raise UnsupportedMediaType()
    request.max_content_length = MAX_JSON_BYTES
    raw = request.get_data(cache=False)
    try:
        return parse_json(raw)
    except InvalidConfig as exc:
        raise _InvalidJson(str(exc)) from exc


class _InvalidJson(InvalidConfig):
    """The body is not JSON."""


def _answer_errors(blueprint: Blueprint) -> None:
    """Answer what the views raise in the envelope."""

    @blueprint.errorhandler(InvalidConfig)
    def on_invalid(exc: InvalidConfig) -> Response:
        code = "invalid_json" if isinstance(exc, _InvalidJson) else "invalid_config"
        return failure(400, code, exc.details or [{"field": "", "problem": str(exc)}])

    @blueprint.errorhandler(ConfigConflict)
    def on_conflict(exc: ConfigConflict) -> Response:
        return failure(409, "conflict")

    @blueprint.errorhandler(LimiterUnavailable)
    def on_unavailable(exc: LimiterUnavailable) -> Response:
        logger.warning("%s %s: %s", request.method, request.path, exc)
        return failure(503, "unavailable", **{"Retry-After": "5"})

    blueprint.register_error_handler(HTTPException, _on_http_error)

    @blueprint.errorhandler(Exception)
    def on_bug(exc: Exception) -> Response:
        logger.exception("%s %s failed", request.method, request.path)
        return failure(500, "internal")


def _on_http_error(exc: HTTPException) -> Response:
    status = exc.code or 500
    code = _CODES.get(status, "bad_request" if status < 500 else "internal")
    # Allow, WWW-Authenticate, Retry-After: the body alone is ours.
    headers = {name: value for name, value in exc.get_headers() if name != "Content-Type"}
    return failure(status, code, **headers)


def _answer_the_rest(blueprint: Blueprint) -> None:
    """Answer what no route takes: in the user's app its own handlers would, in HTML."""
    allowed = {
        "config": "GET, HEAD, OPTIONS, PUT",
        "reset": "OPTIONS, POST",
        "usage": "GET, HEAD, OPTIONS",
        "stats": "GET, HEAD, OPTIONS",
    }

    def rest(path: str = "") -> Response:
        if path in allowed:
            return failure(405, "method_not_allowed", Allow=allowed[path])
        return failure(404, "not_found")

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    blueprint.add_url_rule("/", view_func=rest, methods=methods, strict_slashes=False)
    blueprint.add_url_rule("/<path:path>", view_func=rest, methods=methods)
