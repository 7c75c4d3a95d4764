"""Which answer each error gets. ``envelope.py`` has the form of an answer."""

import logging
from typing import Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from celery_concurrency.api.envelope import failure
from celery_concurrency.errors import (
    AmbiguousId,
    ConfigConflict,
    InvalidConfig,
    InvalidCooldown,
    LimiterUnavailable,
    OutOfMemory,
    UnknownVersion,
    VersionMismatch,
)
from celery_concurrency.log import API_LOG

logger = logging.getLogger(API_LOG)

#: The code of an HTTP error in the envelope.
_CODES: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}


def answer_errors(blueprint: Blueprint) -> None:
    """Answer everything that the blueprint's views raise, in the envelope."""

    @blueprint.errorhandler(InvalidConfig)
    def on_invalid(exc: InvalidConfig) -> Response:
        details = exc.details or [{"field": "", "problem": str(exc)}]
        return failure(400, "invalid_config", details)

    @blueprint.errorhandler(InvalidCooldown)
    def on_invalid_cooldown(exc: InvalidCooldown) -> Response:
        return failure(400, "invalid_cooldown", [{"field": exc.field, "problem": exc.problem}])

    @blueprint.errorhandler(AmbiguousId)
    def on_ambiguous(exc: AmbiguousId) -> Response:
        details = [{"field": "id", "problem": one} for one in exc.candidates]
        return failure(409, "ambiguous_id", details)

    @blueprint.errorhandler(ConfigConflict)
    def on_conflict(exc: ConfigConflict) -> Response:
        return failure(409, "conflict")

    @blueprint.errorhandler(VersionMismatch)
    def on_mismatch(exc: VersionMismatch) -> Response:
        details = [{"field": "If-Match", "problem": str(exc)}]
        return failure(412, "precondition_failed", details, ETag=f'"{exc.version}"')

    @blueprint.errorhandler(UnknownVersion)
    def on_unknown_version(exc: UnknownVersion) -> Response:
        return failure(404, "unknown_version", [{"field": "version", "problem": str(exc)}])

    @blueprint.errorhandler(LimiterUnavailable)
    def on_unavailable(exc: LimiterUnavailable) -> Response:
        logger.warning("%s %s: %s", request.method, request.path, exc)
        return failure(503, "unavailable", **{"Retry-After": "5"})

    @blueprint.errorhandler(OutOfMemory)
    def on_out_of_memory(exc: OutOfMemory) -> Response:
        logger.warning("%s %s: %s", request.method, request.path, exc)
        details = [{"field": "maxmemory", "problem": str(exc)}]
        return failure(503, "out_of_memory", details, **{"Retry-After": "5"})

    blueprint.register_error_handler(HTTPException, on_http_error)

    @blueprint.errorhandler(Exception)
    def on_bug(exc: Exception) -> Response:
        logger.exception("%s %s failed", request.method, request.path)
        return failure(500, "internal")


def on_http_error(exc: HTTPException) -> Response:
    """Answer an HTTP error in the envelope."""
    status = exc.code or 500
    code = _CODES.get(status, "bad_request" if status < 500 else "internal")
    # Keep its other headers: Allow, WWW-Authenticate, Retry-After.
    headers = {name: value for name, value in exc.get_headers() if name != "Content-Type"}
    return failure(status, code, **headers)
