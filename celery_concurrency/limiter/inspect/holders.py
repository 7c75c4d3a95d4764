"""Holders: who holds tokens, in which limits, since when, on which worker.

``limiter/limiter.py`` gives tokens and takes them back, ``limiter/leases.py`` renews them.
"""

import re
from bisect import bisect_right
from typing import Any, Final

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds
from celery_concurrency.limiter.weights import is_token, read_group
from celery_concurrency.scripts.constants import COLLECTING_SUFFIX, RESERVED_SUFFIX

#: Holders on a page, where nobody says how many, and at most.
DEFAULT_COUNT: Final = 100
MAX_COUNT: Final = 1000

#: Holders that are sorted by age, at most.
SORTED: Final = 5_000
#: Since when a token is held if that is not known: it comes last.
UNKNOWN: Final = 99_999_999_999

#: The last expiry of a page, or the last age, and the token that had it.
CURSOR: Final = r"(age )?([0-9]{1,17}(?:\.[0-9]{1,17})?):(.+)"


class Holder(BaseModel):
    """Who holds tokens.

    Attributes:
        token: the run, or what room is reserved or kept for.
        task_id: its task.
        task, worker: their names; None where they are not known.
        limits: those it holds a token in.
        since: when it got them, in Unix seconds of the Redis server.
        expires: when they expire if nobody renews them.
        weight: how many places it takes in each shared limit; left out of JSON where it is 1.
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
    weight: int = 1

    @model_serializer(mode="wrap")
    def _without_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return {name: value for name, value in data.items() if (name, value) != ("weight", 1)}


class Page(BaseModel):
    """A page of holders, who has held for longest first (``read_tokens``).

    Attributes:
        tokens: the holders.
        total: how many there are on all pages; of a limit that more than ``SORTED`` hold, how
            many places they take.
        next: the cursor of the next page; None where this is the last.
    """

    tokens: list[Holder]
    total: int
    next: str | None


def read_tokens(
    keyspace: Keyspace,
    limit: str = "",
    count: int = DEFAULT_COUNT,
    cursor: str = "",
    *,
    worker: str = "",
) -> Page:
    """Return a page of the holders of living tokens, who has held for longest first.

    To sort them costs a command a token, in batches, so where there are more than ``SORTED`` they
    come as they expire, the soonest first. Then a token that is renewed between two pages comes
    again; none is left out, either way.

    Args:
        limit: list the holders of this limit only; "" is all.
        count: holders on a page.
        cursor: the ``next`` of the page before; "" is the first page.
        worker: list the tokens of this worker only; "" is all. Where more than ``SORTED`` are
            held, so many are looked at, the soonest to expire.

    Raises:
        ValueError: the cursor is that of no page.
    """
    by_age, number, token = "", "", ""
    if cursor:
        found = re.fullmatch(CURSOR, cursor, re.DOTALL)
        if not found:
            raise ValueError("this is not a cursor: use the one from the previous page")
        by_age, number, token = found.groups()
    if by_age or worker or (not cursor and _count_tokens(keyspace, limit) <= SORTED):
        after = (float(number), token) if cursor else (0.0, "")
        page = _read_by_age(keyspace, limit, count, after, worker)
    else:
        page = _read_by_expiry(keyspace, limit, count, number, token)
    for one in page.tokens:
        if one.kept:  # it has no record of its limits
            one.limits = [limit]
    return page


def _count_tokens(keyspace: Keyspace, limit: str) -> int:
    count: Any = keyspace.redis.zcard(_holders_of(keyspace, limit))
    return int(count)


def _holders_of(keyspace: Keyspace, limit: str) -> str:
    return keyspace.keys.semaphore(limit) if limit else keyspace.keys.leases


def _read_by_age(
    keyspace: Keyspace, limit: str, count: int, after: tuple[float, str], worker: str
) -> Page:
    first, most = (0, SORTED) if worker else (None, None)
    living: Any = keyspace.redis.zrange(
        _holders_of(keyspace, limit), f"({keyspace.now():.6f}", "+inf",
        byscore=True, withscores=True, offset=first, num=most,
    )  # fmt: skip
    expiries = {token.decode(): expiry for token, expiry in living if is_token(token.decode())}
    in_order = sorted(
        (float(since or UNKNOWN), token)
        for token, (since, holder) in keyspace.for_each(
            expiries, lambda pipe, token: pipe.hmget(keyspace.keys.token(token), "since", "worker")
        )
        if worker in ("", (holder or b"").decode())
    )
    rest = in_order[bisect_right(in_order, after) :]
    records = keyspace.for_each(
        (token for _, token in rest[:count]),
        lambda pipe, token: pipe.hmget(
            keyspace.keys.token(token), "limits", "task", "worker", "since", "reserved"
        ),
    )
    tokens = [_holder(token.encode(), expiries[token], *record) for token, record in records]
    since, last = rest[:count][-1] if rest else (0.0, "")
    more = f"age {since:.6f}:{last}" if len(rest) > count else None
    return Page(tokens=tokens, total=len(in_order), next=more)


def _read_by_expiry(keyspace: Keyspace, limit: str, count: int, expiry: str, token: str) -> Page:
    total, *rows = keyspace.call("tokens", limit, count, expiry, token).reply
    last = None if len(rows) < count else b":".join((rows[-1][1], rows[-1][0])).decode()
    return Page(tokens=[_holder(*row) for row in rows], total=total, next=last)


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
    names, weight = read_group(limits)
    return Holder(
        token=token,
        task_id=task_of(token),
        task=(task or b"").decode() or None,
        limits=names,
        weight=weight,
        worker=(worker or b"").decode() or None,
        since=None if since is None else float(since),
        expires=float(expiry),
        reserved=reserved is not None,
        kept=token.endswith(COLLECTING_SUFFIX),
    )
