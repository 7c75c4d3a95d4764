"""Who makes a request: their name, for the history and the log of changes.

``access.py`` decides whether they may make it.
"""

import logging
from typing import Any, Final

from flask import abort, g, request

from celery_concurrency.api.envelope import failure
from celery_concurrency.errors import InvalidOperator
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.log import API_LOG, fields

logger = logging.getLogger(API_LOG)

OPERATOR_HEADER: Final = "X-Operator"


def known_operator() -> str | None:
    """Return the operator that ``authorize`` named, or None."""
    name: str | None = g.get("concurrency_operator")
    return name


def author(source: str = "api") -> Author:
    """Return who makes this request: the name from ``authorize``, else from ``X-Operator``."""
    known = known_operator()
    # WSGI decodes headers as Latin-1, but curl sends names in UTF-8.
    claimed = request.headers.get(OPERATOR_HEADER, "").encode("latin-1").decode("utf-8", "replace")
    try:
        return Author(source, known or claimed or None)
    except InvalidOperator as exc:
        field = "authorize" if known else OPERATOR_HEADER
        abort(failure(400, "invalid_operator", [{"field": field, "problem": str(exc)}]))


def log_action(by: Author, decision: str, message: str, *args: object, **more: Any) -> None:
    """Log what an operator did to others' tokens or tasks; ``more`` are fields of the record."""
    logger.warning(
        f"{message} by %s",
        *args,
        by.operator or "unknown",
        extra=fields(decision, **more, operator=by.operator),
    )
