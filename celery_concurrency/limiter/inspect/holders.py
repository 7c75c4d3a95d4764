"""Holders: who holds tokens, in which limits, since when, on which worker.

``limiter/limiter.py`` gives tokens and takes them back, ``limiter/leases.py`` renews them.
"""

import json
import re
from typing import Any, Final

from pydantic import BaseModel

from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds
from celery_concurrency.scripts.constants import COLLECTING_SUFFIX, RESERVED_SUFFIX

#: Holders on a page, where nobody says how many, and at most.
DEFAULT_COUNT: Final = 100
MAX_COUNT: Final = 1000

#: The last expiry of a page, and the token that had it.
CURSOR: Final = r"([0-9]{1,17}(?:\.[0-9]{1,17})?):(.+)"


class Holder(BaseModel):
    """Who holds tokens.

    Attributes:
        token: the run, or what room is reserved or kept for.
        task_id: its task.
        task, worker: their names; None where they are not known.
        limits: those it holds a token in.
        since: when it got them, in Unix seconds of the Redis server.
        expires: when they expire if nobody renews them.
        reserved: they were handed over, and no run has begun on them yet.
        kept: nobody holds it: room is kept for this task, which was passed over for long.
            Listed with a limit only, as that is where it counts.
    """

    token: str
    task_id: str
    task: str | None
    limits: list[str]
    worker: str | None
    since: float | None
    expires: float
    reserved: bool
    kept: bool


class Page(BaseModel):
    """A page of holders, the soonest to expire first.

    Attributes:
        tokens: the holders.
        total: how many there are on all pages.
        next: the cursor of the next page; None where this is the last.
    """

    tokens: list[Holder]
    total: int
    next: str | None


def read_tokens(
    keyspace: Keyspace, limit: str = "", count: int = DEFAULT_COUNT, cursor: str = ""
) -> Page:
    """Return a page of the holders of living tokens.

    A token that is renewed between two pages comes again; none is left out.

    Args:
        limit: list the holders of this limit only; "" is all.
        count: holders on a page.
        cursor: the ``next`` of the page before; "" is the first page.

    Raises:
        ValueError: the cursor is that of no page.
    """
    expiry, token = "", ""
    if cursor:
        found = re.fullmatch(CURSOR, cursor, re.DOTALL)
        if not found:
            raise ValueError("this is no cursor: take that of the page before")
        expiry, token = found.groups()
    total, *rows = keyspace.call("tokens", limit, count, expiry, token).reply
    last = None if len(rows) < count else b":".join((rows[-1][1], rows[-1][0])).decode()
    tokens = [_holder(*row) for row in rows]
    for one in tokens:
        if one.kept:  # it has no record of its limits
            one.limits = [limit]
    return Page(tokens=tokens, total=total, next=last)


def find_token(keyspace: Keyspace, token: str) -> Holder | None:
    """Return who holds a token; None where it is not held, or its time is over."""
    pipe = keyspace.pipeline()
    # In this order: of a run that ends meanwhile the record may be there, and the lease not.
    pipe.hmget(keyspace.keys.token(token), "limits", "task", "worker", "since", "reserved")
    pipe.zscore(keyspace.keys.leases, token)
    pipe.time()
    record, expiry, now = pipe.execute()
    if expiry is None or expiry <= unix_seconds(now):
        return None
    return _holder(token.encode(), expiry, *record)


def task_of(token: str) -> str:
    """Return the id of the task that a token's name begins with."""
    return token.removesuffix(RESERVED_SUFFIX).rpartition(":")[0] or token


def _holder(
    name: bytes,
    expiry: Any,
    limits: bytes | None,
    task: bytes | None,
    worker: bytes | None,
    since: bytes | None,
    reserved: bytes | None,
) -> Holder:
    token = name.decode()
    return Holder(
        token=token,
        task_id=task_of(token),
        task=(task or b"").decode() or None,
        limits=json.loads(limits or b"[]"),
        worker=(worker or b"").decode() or None,
        since=None if since is None else float(since),
        expires=float(expiry),
        reserved=reserved is not None,
        kept=token.endswith(COLLECTING_SUFFIX),
    )
