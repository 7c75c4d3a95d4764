"""Workers: who is alive, since when each was last heard of, how its tasks wait, what it holds.

``limiter/workers.py`` has what a worker says of itself, ``holders.py`` lists single tokens.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel

from celery_concurrency.limiter.caller import CALL
from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds
from celery_concurrency.limiter.limits import GLOBAL
from celery_concurrency.limiter.weights import places_in, read_group

#: Workers that are listed, those that have been silent for longest first.
MAX_LISTED: Final = 1_000
#: Living tokens that are read to see who holds them, and limits that are named of each holder.
MAX_TOKENS: Final = 5_000
MAX_LIMITS: Final = 20
#: Beats come once a second: one that is late for so many seconds in all is missed.
SILENT_SECONDS: Final = 3.0


class Worker(BaseModel):
    """A worker, or another process that holds tokens.

    Attributes:
        name: a worker's node name; a program's process id and host.
        kind: ``worker``, or ``program`` for one that holds tokens by ``limiter.acquire``.
        alive: it was heard of in the last ``SILENT_SECONDS``; None for those that hold tokens
            and say nothing of themselves: programs, and workers of an earlier version.
        heard: when it was last heard of, in Unix seconds of the Redis server.
        silent: how many seconds ago that was.
        taken_back_after: seconds of silence after which its tokens are taken back.
        since: when it started.
        mode: how its denied tasks wait, as of its start.
        version: of this package.
        pool, concurrency: the kind of its pool, and how many tasks that runs at once at most.
        tokens: how many it holds.
        limits: in which limits, and how many in each; those with most first, ``MAX_LIMITS`` of
            them.
        more_limits: how many limits that leaves out.
    """

    name: str
    kind: Literal["worker", "program"] = "worker"
    alive: bool | None = None
    heard: float | None = None
    silent: float | None = None
    taken_back_after: float | None = None
    since: float | None = None
    mode: str | None = None
    version: str | None = None
    pool: str | None = None
    concurrency: int | None = None
    tokens: int = 0
    limits: dict[str, int] = {}
    more_limits: int = 0


class Workers(BaseModel):
    """All workers, silent ones first, and those last that say nothing of themselves.

    Attributes:
        workers: at most ``MAX_LISTED`` that say something of themselves, and those that hold
            one of ``MAX_TOKENS`` tokens.
        total: how many there are, as far as is known.
        modes, versions: how many of those that are alive have each mode, and each version.
        unread_tokens: tokens beyond ``MAX_TOKENS``: who holds them was not looked at.
    """

    workers: list[Worker]
    total: int
    modes: dict[str, int]
    versions: dict[str, int]
    unread_tokens: int

    def notes(self) -> Iterator[str]:
        """Yield in words what is not as it should be, or is left out."""
        for one in self.workers:
            if one.alive is False:
                yield (
                    f"{one.name} is silent for {one.silent:.0f} s: its tokens are taken back "
                    f"after {one.taken_back_after:.0f} s"
                )
        for what, counts in (("modes", self.modes), ("versions", self.versions)):
            if len(counts) > 1:
                each = ", ".join(f"{name} ({count})" for name, count in counts.items())
                yield f"workers have different {what}: {each}"
        if self.total > len(self.workers):
            yield f"{self.total - len(self.workers)} more workers are not listed"
        if self.unread_tokens:
            yield f"{self.unread_tokens} more tokens are held; whose they are was not looked at"


def read_workers(keyspace: Keyspace) -> Workers:
    """Return who is alive, or was until lately, and what each holds."""
    reported, total = read_reported(keyspace)
    held, unread = _read_held(keyspace)
    workers = {one.name: one for one in reported}
    for name, holds in held.items():
        kind: Literal["worker", "program"] = "program" if holds.by_program else "worker"
        one = workers.setdefault(name, Worker(name=name, kind=kind))
        # Every run counts in global: that comes first.
        most = sorted(holds.limits.items(), key=lambda pair: (pair[0] != GLOBAL, -pair[1], pair[0]))
        one.tokens, one.limits = holds.tokens, dict(most[:MAX_LIMITS])
        one.more_limits = len(most) - len(one.limits)
    living = [one for one in reported if one.alive]
    return Workers(
        workers=sorted(workers.values(), key=_order),
        total=total + len(workers) - len(reported),
        modes=_counted(one.mode for one in living),
        versions=_counted(one.version for one in living),
        unread_tokens=unread,
    )


def read_reported(keyspace: Keyspace) -> tuple[list[Worker], int]:
    """Return what workers say of themselves, without what they hold; and how many there are."""
    pipe = keyspace.pipeline()
    pipe.zrange(keyspace.keys.workers, 0, MAX_LISTED - 1, withscores=True)
    pipe.zcard(keyspace.keys.workers)
    pipe.time()
    found, total, time = pipe.execute()
    ends = {name.decode(): end for name, end in found}
    records = keyspace.for_each(
        ends, lambda pipe, name: pipe.hmget(keyspace.keys.worker(name), "heard", "facts")
    )
    now = unix_seconds(time)
    # One without a record has ended meanwhile.
    reported = [
        _reported(name, ends[name], now, *record) for name, record in records if all(record)
    ]
    return reported, total


def _reported(name: str, end: float, now: float, heard: bytes, facts: bytes) -> Worker:
    # It may have been heard of again since the time was read.
    silent = max(0.0, now - float(heard))
    return Worker.model_validate(
        {
            **json.loads(facts),
            "name": name,
            "alive": silent < SILENT_SECONDS,
            "heard": float(heard),
            "silent": round(silent, 3),
            "taken_back_after": round(end - float(heard), 3),
        }
    )


@dataclass(slots=True)
class _Held:
    """What one holds: how many tokens, and how many places in each limit."""

    by_program: bool = False
    tokens: int = 0
    limits: Counter[str] = field(default_factory=Counter)


def _read_held(keyspace: Keyspace) -> tuple[Mapping[str, _Held], int]:
    """Return what is held, by the holders' names; and how many tokens were not read."""
    tokens: Any = keyspace.redis.zrange(keyspace.keys.leases, 0, MAX_TOKENS - 1)
    total: Any = keyspace.redis.zcard(keyspace.keys.leases)
    held: defaultdict[str, _Held] = defaultdict(_Held)
    for token, (worker, limits) in keyspace.for_each(
        tokens,
        lambda pipe, token: pipe.hmget(keyspace.keys.token(token.decode()), "worker", "limits"),
    ):
        if worker:  # what is reserved has no holder yet
            one = held[worker.decode()]
            one.tokens += 1
            names, weight = read_group(limits)
            one.limits.update({limit: places_in(limit, weight) for limit in names})
            one.by_program |= token.startswith(CALL.encode())
    return held, max(0, total - MAX_TOKENS)


def _order(one: Worker) -> tuple[int, float, str]:
    """Return where a worker is listed: those first that have been silent for longest."""
    if one.alive is False:
        return 0, -(one.silent or 0), one.name
    return (1 if one.alive else 2), 0, one.name


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    """Return how many there are of each value, the most frequent first; None is not known."""
    return dict(Counter(value for value in values if value is not None).most_common())
