"""Who may call: the user's ``authorize``, bearer tokens, checks of other sites and host names.

``author.py`` says who the caller is.
"""

import hmac
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from flask import Request, abort, current_app, g, request
from werkzeug.exceptions import HTTPException

from celery_concurrency.api.envelope import failure

Authorize = Callable[[Request], object]

#: A host and its port, as browsers write them; anything else is refused. Werkzeug's own check
#: accepts "localhost:80:80", and no IPv6 address.
AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
ORIGIN: Final = re.compile(rf"https?://({AUTHORITY.pattern})")

#: The methods that only read.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def admit(authorize: Authorize) -> None:
    """Ask ``authorize`` about this request; if it returns a text, that is the operator's name."""
    g.concurrency_authorize = authorize
    answer = authorize(request)
    if not answer:
        abort(failure(403, "forbidden"))
    if isinstance(answer, str):
        g.concurrency_operator = answer


def may_change() -> bool:
    """Return whether the caller of this route may change the configuration.

    ``authorize`` is asked about an imagined request: a PUT of ``/config`` by the same caller.
    """
    authorize: Authorize | None = g.get("concurrency_authorize")
    if authorize is None:
        return True
    address = request.environ["PATH_INFO"].rpartition("/")[0] + "/config"
    environ = {**request.environ, "REQUEST_METHOD": "PUT", "PATH_INFO": address}
    try:
        return bool(authorize(current_app.request_class(environ, populate_request=False)))
    except HTTPException:
        return False


def bearer(token: str | None, read_token: str | None) -> Authorize:
    """Return an ``authorize`` that asks for a bearer token.

    Requests without one get a 401, changes with ``read_token`` a 403.

    Args:
        token: the token that may do everything; None for none.
        read_token: the token that may only read; None for none.
    """

    def authorize(request: Request) -> bool:
        given = request.authorization
        shown = (given.token or "") if given and given.type == "bearer" else ""
        # Always compare with both, so that the time this takes reveals nothing.
        may_all, may_read = _same(shown, token), _same(shown, read_token)
        if may_all or (may_read and request.method in SAFE_METHODS):
            return True
        if may_read:
            abort(failure(403, "read_only"))
        challenge = {"WWW-Authenticate": 'Bearer realm="concurrency"'}
        abort(failure(401, "unauthorized", **challenge))

    return authorize


def refuse_cross_site() -> None:
    """Refuse changes that another site's page makes through the browser of one of our users.

    Browsers say where a request comes from in ``Sec-Fetch-Site``, older ones in ``Origin``.
    Programs send neither, and are allowed.
    """
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        allowed = site in ("same-origin", "none")
    else:
        allowed = origin is None or _authority_of(origin) == request.headers.get("Host")
    if not allowed:
        abort(failure(403, "cross_site"))


def refuse_foreign_host() -> None:
    """Refuse requests for another host's name; for an app that is served on loopback.

    Another site may point its own name at 127.0.0.1 (DNS rebinding). A browser would then take
    its pages and ours for the same origin.
    """
    host = request.headers.get("Host", "localhost")
    if not _names_loopback(host):
        problem = f"{host[:200]!r} is not a loopback name: use localhost or 127.0.0.1"
        abort(failure(403, "foreign_host", [{"field": "Host", "problem": problem}]))


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is ``localhost`` or an address that only this machine reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _names_loopback(host: str) -> bool:
    """Return whether a Host header, with or without a port, is a loopback name."""
    found = AUTHORITY.fullmatch(host)
    if not found:
        return False
    in_brackets, name = found.groups()
    try:
        if in_brackets is not None:
            return IPv6Address(in_brackets).is_loopback
        return name.lower() == "localhost" or IPv4Address(name).is_loopback
    except ValueError:
        return False


def _authority_of(origin: str) -> str | None:
    """Return the host and port of an Origin header; None if it is not a page's origin."""
    found = ORIGIN.fullmatch(origin)
    return found and found[1]


def _same(shown: str, token: str | None) -> bool:
    # An empty token does not count as one.
    return bool(token) and hmac.compare_digest(shown.encode(), (token or "").encode())
