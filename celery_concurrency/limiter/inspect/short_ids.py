"""Short ids: which task or token is meant by the first characters of its id.

An index has the names of all waiters in their order, so that it costs no more when many wait;
what is held is looked through, in batches. ``explanation.py`` says what such a task does.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from celery_concurrency.errors import AmbiguousId
from celery_concurrency.limiter.inspect.holders import task_of
from celery_concurrency.limiter.inspect.waiter_records import read_records
from celery_concurrency.limiter.keyspace import BATCH, Keyspace

#: Characters that a short id has at least.
SHORTEST: Final = 4
#: Waiters that are read of those whose names begin so: a task may have some, for its retries.
WAITERS: Final = 32
#: Ids that are named where several begin so.
CANDIDATES: Final = 5


def whole_id(keyspace: Keyspace, given: str) -> str:
    """Return the id of the task that is meant.

    Args:
        given: a whole id, or the first characters of one, at least ``SHORTEST``. A task that
            waits or holds tokens by just this id is always the one that is meant.

    Returns:
        the id of the only task that begins so: of those that wait, or else of those that hold
        tokens; ``given`` where none does.

    Raises:
        AmbiguousId: several do.
    """
    names = (keyspace.keys.waiter(given), keyspace.keys.retried(given))
    if len(given) < SHORTEST or keyspace.redis.exists(*names):
        return given
    running = {task_of(token) for token in _tokens(keyspace, given)}
    if given in running:
        return given
    return _the_only(given, _waiting(keyspace, given) or running)


def whole_token(keyspace: Keyspace, given: str) -> str:
    """Return the token that is meant: a whole name, or its first characters.

    Args, Returns, Raises: as for ``whole_id``, among tokens that are held or reserved.
    """
    if len(given) < SHORTEST or keyspace.redis.zscore(keyspace.keys.leases, given) is not None:
        return given
    found = set(_tokens(keyspace, given))
    # A whole id of a task, though others begin with it.
    own = {token for token in found if task_of(token) == given}
    return _the_only(given, own or found)


def tokens_of(keyspace: Keyspace, task_id: str) -> Iterator[str]:
    """Yield the tokens of a task's runs, and those reserved for it; all tokens are read."""
    for token in _tokens(keyspace, f"{task_id}:"):
        if task_of(token) == task_id:
            yield token


def _the_only(given: str, found: Iterable[str]) -> str:
    ids = sorted(found)
    if len(ids) > 1:
        raise AmbiguousId(given, ids[:CANDIDATES])
    return ids[0] if ids else given


def _waiting(keyspace: Keyspace, start: str) -> set[str]:
    """Return the tasks that wait whose ids begin so, as far as ``WAITERS`` go."""
    first = start.encode()
    names: Any = keyspace.redis.zrange(
        keyspace.keys.names, b"[" + first, b"(" + first + b"\xff",
        bylex=True, offset=0, num=WAITERS,
    )  # fmt: skip
    records = read_records(keyspace, [name.decode() for name in names])
    return {one.task_id for one in records}


def _tokens(keyspace: Keyspace, start: str) -> Iterator[str]:
    """Yield the tokens, held or reserved, whose names begin so."""
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
    found: Any = keyspace.redis.zscan_iter(keyspace.keys.leases, match=pattern, count=BATCH)
    for token, _ in found:
        yield token.decode()
