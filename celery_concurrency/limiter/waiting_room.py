"""The waiting room: messages of denied runs wait in Redis, and go on when there is room.

Each script that frees room hands it over: it reserves the tokens for the waiter
that comes first and puts the message of that back. What a message is, and how
one is sent to a broker that is not this Redis, is the Celery floor's matter.

Who waits is shown by ``limiter/inspect/waiting.py``; the index over them is in
``scripts/lib/index.lua``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.limiter.connection import asking
from celery_concurrency.limiter.inspect.waiter_records import asked_of, groups_in_order

#: Steps of a hand-over in one call of a script: some 30 commands and 60 µs each.
STEPS: Final = 32
#: How long a caller goes on with a hand-over that takes more calls; workers do the rest.
RELEASE_SECONDS: Final = 0.05
SWEEP_SECONDS: Final = 0.5
CHANGE_SECONDS: Final = 2.0
#: Seconds between two sweeps, of all workers together, and what one call looks at.
SWEEP_PERIOD: Final = 1.0
SWEEP_BATCH: Final = 64
SWEEP_CALLS: Final = 16
#: A limit that something waits for is looked at again after so many seconds.
RECHECK_SECONDS: Final = 1.0
#: A waiter that needs several scarce limits, and waits for longer than this while
#: juniors get them, is collected for; for so many seconds, one at a time.
PATIENCE_SECONDS: Final = 10.0
COLLECT_SECONDS: Final = 60.0
#: How many waiters are given back to the broker, or cancelled, in one call.
DRAIN_BATCH: Final = 64
CANCEL_BATCH: Final = 64
#: Messages of the outbox that one sender takes at a time, and for how many seconds.
CLAIM_BATCH: Final = 32
CLAIM_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands among those who wait.

    Attributes:
        score: orders them; lower comes first.
        parked_as: the name under which its message was parked first, and which its
            copies share; "" if it never was.
        limits: those that it waited with; () if it never did.
    """

    score: int
    parked_as: str = ""
    limits: tuple[str, ...] = ()

    @property
    def asked(self) -> float:
        """When it asked first, in Unix seconds of the Redis server."""
        return asked_of(self.score)


@dataclass(frozen=True, slots=True)
class Waiter:
    """A message that is to wait.

    Attributes:
        run: the token of the denied run.
        task_id: its task's id.
        retries: how often that was retried; 0 for the first time.
        replaced: how often it was replaced.
        limits: those that it was denied in.
        score: its place (``Place.score``).
        message: complete and ready to be put back; begins with ``constants.OPENING``.
        hold: seconds for which tokens stay reserved for it.
        expires: Unix seconds after which it may not run; None for never.
        queue: the broker's key of its queue, where the broker is this Redis server;
            None where the message goes through the outbox.
        queue_expires: milliseconds after which that queue goes, if nobody uses it.
        db: the broker's database, where it is another one than ours.
    """

    run: str
    task_id: str
    retries: int
    replaced: int
    limits: tuple[str, ...]
    score: int
    message: bytes
    hold: float
    expires: float | None = None
    queue: str | None = None
    queue_expires: int | None = None
    db: int | None = None

    @property
    def name(self) -> str:
        """What it is kept under: the copies of a message share it, retries don't."""
        name = self.task_id
        if self.retries or self.replaced:
            name += f" retry {self.retries}"
        return f"{name} replaced {self.replaced}" if self.replaced else name


@lru_cache(maxsize=4096)
def group_of(limits: tuple[str, ...]) -> str:
    """Return the name of the group of all waiters with these limits."""
    return json.dumps(limits, ensure_ascii=False)


class WaitingRoom:
    """Parks messages and hands room over.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys.
        deliver: is called when the outbox has messages to send; None where nobody
            here can send them.
        copies_seconds: how long after its end a second copy of a message is known.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        deliver: Callable[[], None] | None = None,
        copies_seconds: int = 7200,
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._deliver = deliver
        self._copies_seconds = copies_seconds
        self.steps = STEPS
        self.patience = PATIENCE_SECONDS

    def park(self, waiter: Waiter) -> str:
        """Let a message wait, or go on at once where there is room by now.

        Returns:
            "parked"; "handed over"; "merged" if another copy of it waits already; or
            "again" if it found its place before.

        Raises:
            LimiterUnavailable: Redis can't be asked; it may be parked all the same,
                and may be parked again.
        """
        reply = self.handing(
            "park",
            waiter.run,
            waiter.name,
            group_of(waiter.limits),
            waiter.score,
            json.dumps(self._facts(waiter), ensure_ascii=False),
            waiter.message,
            "" if waiter.expires is None else f"{waiter.expires:.6f}",
        )
        return str(reply.decode())

    def _facts(self, waiter: Waiter) -> dict[str, Any]:
        """Return what the scripts have to know of a waiter; little, as millions may wait."""
        facts: dict[str, Any] = {
            "group": group_of(waiter.limits),
            "run": waiter.run,
            "hold": waiter.hold,
        }
        if waiter.name != waiter.task_id:
            facts["task"] = waiter.task_id
        if waiter.queue is not None:
            facts["queue"] = waiter.queue
            if waiter.queue_expires is not None:
                facts["queue_expires"] = waiter.queue_expires
            if waiter.db is not None:
                facts["db"] = waiter.db
                facts["home"] = self._redis.get_connection_kwargs().get("db") or 0
        return facts

    def forgo(self, parked_as: str, limits: Sequence[str]) -> bool:
        """Give up the reservation for a message that was put back and will not run.

        Args:
            parked_as: the name under which it was parked.
            limits: those that it waited with.

        Raises:
            LimiterUnavailable: Redis can't be asked; the reservation lapses by itself.
        """
        return bool(self.handing("forgo", parked_as, group_of(tuple(limits)), self._copies_seconds))

    def cancel(self, task_id: str) -> bool:
        """Take a task out; a worker then discards it as revoked, and tells its canvas.

        Returns:
            whether it waited.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        return bool(self.handing("cancel", task_id))

    def cancel_limit(self, limit: str) -> Iterator[int]:
        """Take all out who count in a limit and wait by now, in steps; as ``cancel`` does.

        Yields:
            how many each step took out.

        Raises:
            LimiterUnavailable: Redis can't be asked; those before are taken out.
        """
        with asking():
            groups = [
                group
                for some, _ in groups_in_order(self._redis, self._prefix)
                for group in some
                if limit in json.loads(group)
            ]
        for group in groups:
            yield from self._cancel_group(group)

    def _cancel_group(self, group: str) -> Iterator[int]:
        key = f"{self._prefix}:group:{group}"
        with asking():
            # Who comes meanwhile is not meant, and would make this endless.
            waiters: Any = self._redis.zcard(key)
            last: Any = self._redis.zrange(key, -1, -1, withscores=True)
        place = int(last[0][1]) if last else 0
        for done in range(0, waiters, CANCEL_BATCH):
            yield self.handing("cancel_first", group, place, min(waiters - done, CANCEL_BATCH))

    def drain(self) -> Iterator[int]:
        """Give all who wait back to the broker, in steps; yields how many each step gave.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        more = 1
        while more:
            count, more, outbox = scripts.call(
                self._redis, "drain", self._prefix, DRAIN_BATCH
            ).reply
            self._send(outbox)
            yield count

    def sweep(self, *, now: bool = False) -> int:
        """See to what no task's own call does, if it is time; in bounded steps.

        Args:
            now: don't wait for the time.

        Returns:
            how many tokens were taken back.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        total, period = 0, 0.0 if now else SWEEP_PERIOD
        ends = time.monotonic() + SWEEP_SECONDS
        for _ in range(SWEEP_CALLS):
            due, taken, more, outbox = self._sweep(period)
            total += taken
            self._send(outbox)
            if not due or not more or time.monotonic() > ends:
                break
            period = 0.0
        else:
            # Looking again may go on for ever; who has room may not wait for it.
            self.advance(ends - time.monotonic())
        return total

    def _sweep(self, period: float) -> Any:
        return scripts.call(
            self._redis, "sweep", self._prefix, str(period), SWEEP_BATCH,
            str(RECHECK_SECONDS), str(self.patience), str(COLLECT_SECONDS), self.steps,
        ).reply  # fmt: skip

    def recheck(self) -> None:
        """After a change of the configuration: hand over what it gave room for.

        Raises:
            LimiterUnavailable: Redis can't be asked; the next sweep does it.
        """
        more, outbox = scripts.call(self._redis, "advance", self._prefix, 1, self.steps).reply
        self._send(outbox)
        if more:
            self.advance(CHANGE_SECONDS)

    def advance(self, seconds: float) -> bool:
        """Go on with a hand-over for so many seconds; return whether there is more to do.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        ends = time.monotonic() + seconds
        more = 1
        while more and time.monotonic() < ends:
            more, outbox = scripts.call(self._redis, "advance", self._prefix, 0, self.steps).reply
            self._send(outbox)
        return bool(more)

    def claim(self) -> list[tuple[int, bytes]]:
        """Take messages out of the outbox, to send them to the broker and ``confirm`` them.

        Returns:
            number and message of each; they come again for somebody else if they are
            not confirmed within ``CLAIM_SECONDS``.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        reply = scripts.call(self._redis, "claim", self._prefix, CLAIM_BATCH, CLAIM_SECONDS).reply
        return [(int(number), message) for number, message in zip(*[iter(reply)] * 2, strict=True)]

    def confirm(self, number: int) -> None:
        """Note that the broker has a message of the outbox, which is never sent again.

        Raises:
            LimiterUnavailable: Redis can't be asked; the message may be sent again.
        """
        scripts.call(self._redis, "confirm", self._prefix, number)

    def handing(self, verb: str, *args: str | int | bytes) -> Any:
        """Call a script that hands room over, and go on for a moment if that takes more calls.

        Returns:
            the first part of its reply.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        answer, more, outbox = scripts.call(
            self._redis, verb, self._prefix, *args, self.steps
        ).reply
        self._send(outbox)
        if more:
            self.advance(RELEASE_SECONDS)
        return answer

    def _send(self, outbox: int) -> None:
        if outbox and self._deliver:
            self._deliver()
