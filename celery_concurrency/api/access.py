"""Who gets in: bearer tokens, and no other site's page through somebody's browser.

Whom the user's own ``authorize`` lets in is asked in ``author.py``.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from typing import Final

from flask import Request, request

from celery_concurrency.api.author import Authorize
from celery_concurrency.api.errors import Refusal

#: What reads only.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def bearer(token: str | None, read_token: str | None) -> Authorize:
    """Return an ``authorize`` that asks for a bearer token.

    Args:
        token: opens everything; None: nothing does.
        read_token: opens what only reads; None: nothing more does.

    Returns:
        a callable that lets a request in, or raises a ``Refusal``: 401, or 403 for
        a change with ``read_token``.
    """

    def authorize(request: Request) -> bool:
        given = request.authorization
        shown = (given.token or "") if given and given.type == "bearer" else ""
        # Both are compared always: the time taken says nothing about either.
        may_all, may_read = _same(shown, token), _same(shown, read_token)
        if may_all or (may_read and request.method in SAFE_METHODS):
            return True
        if may_read:
            raise Refusal(403, "read_only")
        raise Refusal(401, "unauthorized", **{"WWW-Authenticate": 'Bearer realm="concurrency"'})

    return authorize


def refuse_cross_site() -> None:
    """Let no page of another site change anything through the browser of one of ours.

    Browsers say where a request comes from, in ``Sec-Fetch-Site`` or, if older, in
    ``Origin``; programs send neither, and are no concern here.

    Raises:
        Refusal: 403.
    """
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        allowed = origin is None or origin.partition("://")[2] == request.headers.get("Host")
    if not allowed:
        raise Refusal(403, "cross_site")


def refuse_foreign_host() -> None:
    """Answer on loopback to its own names only.

    Another site's name can be made to lead here (DNS rebinding), and its pages
    would then read and change everything as if they were ours.

    Raises:
        Refusal: 403.
    """
    host = request.headers.get("Host", "localhost")
    if not is_loopback(_name_of(host)):
        problem = f"{host[:200]!r} is no name of loopback: ask for localhost or 127.0.0.1"
        raise Refusal(403, "foreign_host", [{"field": "Host", "problem": problem}])


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is ``localhost`` or an address that only this machine reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name_of(host: str) -> str:
    """Return a Host header without its port: ``[::1]:7000`` is ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _same(shown: str, token: str | None) -> bool:
    # Nobody gets in by an empty one.
    return bool(token) and hmac.compare_digest(shown.encode(), (token or "").encode())
