"""What a request says of its caller: may they, who are they, and which version they saw."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from flask import Request, g, request

from celery_concurrency.api.errors import Refusal
from celery_concurrency.confighistory import Author
from celery_concurrency.limits import name_problem

Authorize = Callable[[Request], object]

OPERATOR_HEADER: Final = "X-Operator"


def admit(authorize: Authorize) -> None:
    """Ask the user's callable; a text that it answers is the operator's name.

    Raises:
        Refusal: 403, it answered something false.
    """
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
    known: str | None = g.get("concurrency_operator")
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


def expected_versions() -> frozenset[int] | None:
    """Return the versions of which ``If-Match`` wants one in force; None where any will do."""
    if "If-Match" not in request.headers or request.if_match.star_tag:
        return None
    tags = request.if_match.as_set()
    return frozenset(int(tag) for tag in tags if re.fullmatch(r"[0-9]{1,19}", tag or ""))
