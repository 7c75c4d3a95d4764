"""What a request says of its caller: may they, who are they, and which version they saw.

Where a token opens the door, or another site is kept out, that is ``access.py``'s matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from flask import Request, current_app, g, request
from werkzeug.exceptions import HTTPException

from celery_concurrency.api.errors import Refusal
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.limits import name_problem

Authorize = Callable[[Request], object]

OPERATOR_HEADER: Final = "X-Operator"


def admit(authorize: Authorize) -> None:
    """Ask the user's callable; a text that it answers is the operator's name.

    Raises:
        Refusal: 403, it answered something false.
    """
    g.concurrency_authorize = authorize
    answer = authorize(request)
    if not answer:
        raise Refusal(403, "forbidden")
    if isinstance(answer, str):
        g.concurrency_operator = answer


def author(source: str = "api") -> Author:
    """Return who makes this request: whom ``authorize`` named, else whom ``X-Operator`` names.

    Raises:
        Refusal: 400, what the header says is no name.
    """
    known = known_operator()
    claimed = request.headers.get(OPERATOR_HEADER)
    if known or not claimed:
        return Author(source, known)
    # WSGI hands headers over as Latin-1, and curl sends a name in UTF-8.
    name = claimed.encode("latin-1").decode("utf-8", "replace")
    problem = name_problem(name)
    if not problem and not name.isprintable():  # it is logged, and shown in terminals
        problem = "has characters that can't be printed"
    if problem:
        raise Refusal(
            400, "invalid_operator", [{"field": OPERATOR_HEADER, "problem": f"the name {problem}"}]
        )
    return Author(source, name)


def known_operator() -> str | None:
    """Return the operator whom ``authorize`` named; None where it named nobody."""
    name: str | None = g.get("concurrency_operator")
    return name


def may_change(path: str) -> bool:
    """Return whether this request's caller may change the configuration.

    ``authorize`` is asked about a change that nobody makes: a PUT of ``/config`` by
    the same caller, as the request that it is given.

    Args:
        path: that of this request, below the API's prefix.
    """
    authorize: Authorize | None = g.get("concurrency_authorize")
    if authorize is None:
        return True
    address = request.environ["PATH_INFO"].removesuffix(path) + "/config"
    environ = {**request.environ, "REQUEST_METHOD": "PUT", "PATH_INFO": address}
    try:
        return bool(authorize(current_app.request_class(environ, populate_request=False)))
    except HTTPException:
        return False


def expected_versions() -> frozenset[int] | None:
    """Return the versions of which ``If-Match`` wants one in force; None where any will do."""
    if "If-Match" not in request.headers or request.if_match.star_tag:
        return None
    tags = request.if_match.as_set()
    return frozenset(int(tag) for tag in tags if re.fullmatch(r"[0-9]{1,19}", tag or ""))
