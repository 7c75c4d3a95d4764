"""The waiting room: messages of denied runs wait in Redis, and go on when there is room.

Each script that frees room hands it over: it reserves the tokens for the first waiter and puts
the waiter's message back. ``worker/message.py`` defines a message, ``worker/outbox.py`` sends it
to a broker other than this Redis, and ``limiter/inspect/waiting.py`` lists who waits.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from celery_concurrency.limiter.acquire_arguments import counted_of
from celery_concurrency.limiter.config.flat import dimensions_key
from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds
from celery_concurrency.limiter.steps import Commands, Script, Steps
from celery_concurrency.limiter.waiters import Waiter, group_of, groups_in_order
from celery_concurrency.limiter.weights import read_group
from celery_concurrency.scripts import Answer

#: Steps of a hand-over in one call of a script; each takes some 30 commands and 60 µs.
STEPS: Final = 32
#: Seconds that a caller spends on a hand-over that takes several calls; workers do the rest.
RELEASE_SECONDS: Final = 0.05
SWEEP_SECONDS: Final = 0.5
CHANGE_SECONDS: Final = 2.0
MOMENT_SECONDS: Final = 0.05
#: Seconds of silence after which another worker takes over watching the moments.
WATCH_SECONDS: Final = 3.0
#: Seconds between two sweeps over all workers, and how much one sweep does.
SWEEP_PERIOD: Final = 1.0
SWEEP_BATCH: Final = 64
SWEEP_CALLS: Final = 16
#: Seconds after which a sweep checks a limit with waiters again.
RECHECK_SECONDS: Final = 1.0
#: A sweep collects for a waiter that needs several scarce limits, after it has waited this many
#: seconds while later waiters were admitted; it collects for at most the second number of
#: seconds, for one waiter at a time.
PATIENCE_SECONDS: Final = 10.0
COLLECT_SECONDS: Final = 60.0
#: Waiters that one call gives back to the broker, cancels or purges.
DRAIN_BATCH: Final = 64
CANCEL_BATCH: Final = 64
PURGE_BATCH: Final = 64
#: Messages that a sender claims from the outbox at a time, and for how many seconds.
CLAIM_BATCH: Final = 32
CLAIM_SECONDS: Final = 30


class WaitingRoom:
    """Parks messages and hands room over.

    Args:
        deliver: called when the outbox has messages to send; None if this process can't send
            them.
        copies_seconds: seconds after the end of a run in which a second copy of its message is
            recognized.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        deliver: Callable[[], None] | None = None,
        copies_seconds: int = 7200,
    ) -> None:
        self._keyspace = keyspace
        self._deliver = deliver
        self._copies_seconds = copies_seconds
        self.steps = STEPS
        self.patience = PATIENCE_SECONDS

    def park(self, waiter: Waiter) -> str:
        """Let a message wait, or hand room over to it at once if there is room by now.

        Returns:
            "parked"; "handed over"; "merged" if another copy of it waits already; "replaced"
            if a newer one waits that replaces it; "crowded" if no more may wait, so that it is
            put back and fails; or "again" if this run's message was parked before.

        Raises:
            LimiterUnavailable: Redis can't be asked; park it again, that is safe.
        """
        return self._keyspace.run(self.parking(waiter))

    def parking(self, waiter: Waiter) -> Steps[str]:
        """Return the steps of ``park``."""
        assert waiter.ticket is not None
        name, group, facts, message, expires = self._arguments(waiter)
        reply = yield from self.calling_and_handing_over(
            "park", waiter.run, name, group, waiter.ticket, facts, message, expires
        )
        return str(reply.decode())

    def join(
        self,
        waiter: Waiter,
        rank: int,
        dimensions: tuple[str, ...],
        here: Mapping[str, Any],
        queued: bytes = b"",
    ) -> Answer:
        """Let a message wait whose group waits already: ``Limiter.join`` calls ``join.lua``."""
        run = {
            "dimensions": dimensions_key(dimensions),
            "rank": rank,
            "counted": counted_of(waiter.limits),
        }
        return self._keyspace.call(
            "join",
            waiter.run,
            *self._arguments(waiter),
            json.dumps(run, ensure_ascii=False),
            json.dumps({**here, "home": self._keyspace.database}, ensure_ascii=False),
            queued,
        )

    def _arguments(self, waiter: Waiter) -> tuple[str, str, str, bytes, str]:
        """Return what the scripts file of a waiter: name, group, facts, message, expiry."""
        return (
            waiter.name,
            waiter.group,
            self._facts(waiter),
            waiter.message,
            "" if waiter.expires is None else f"{waiter.expires:.6f}",
        )

    def _facts(self, waiter: Waiter) -> str:
        """Return what the scripts need to know of a waiter, kept short as millions may wait."""
        run = waiter.run.removeprefix(waiter.task_id)
        facts: dict[str, Any] = {
            "group": waiter.group,
            "run": run if run.startswith(":") else waiter.run,
            "hold": waiter.hold,
        }
        if waiter.parked_as:
            facts["as"] = waiter.parked_as
        if waiter.name != waiter.task_id:
            facts["task"] = waiter.task_id
        if waiter.queue is not None:
            facts["queue"] = waiter.queue
            if waiter.queue_expires is not None:
                facts["queue_expires"] = waiter.queue_expires
            if waiter.db is not None:
                facts["db"] = waiter.db
                facts["home"] = self._keyspace.database
        if waiter.has_begun:
            facts["has_begun"] = True
        if waiter.replaces is not None:
            facts["newest"] = {"task": waiter.replaces, "received": waiter.received}
        return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))

    def rescue(self, token: str, waiter: str) -> bool:
        """Return whether a run's message was parked; if not, refuse to let that run park it later.

        Args:
            token: a run whose process was killed before it could report that.
            waiter: the name of its waiter (``waiters.waiter_name``).

        Raises:
            LimiterUnavailable: Redis can't be asked; ask again, that is safe.
        """
        return self._keyspace.run(self.rescuing(token, waiter))

    def rescuing(self, token: str, waiter: str) -> Steps[bool]:
        """Return the steps of ``rescue``."""
        reply, _ = yield Script("rescue", (token, waiter))
        return bool(reply)

    def forgo(self, parked_as: str, limits: Sequence[str], weight: int = 1) -> bool:
        """Give up the reservation for a message that was put back and will not run.

        Args:
            parked_as: the run that first parked it.
            limits: the limits it waited for.
            weight: its weight.

        Raises:
            LimiterUnavailable: Redis can't be asked; the reservation lapses by itself.
        """
        return self._keyspace.run(self.forgoing(parked_as, limits, weight))

    def forgoing(self, parked_as: str, limits: Sequence[str], weight: int = 1) -> Steps[bool]:
        """Return the steps of ``forgo``."""
        given_up = yield from self.calling_and_handing_over(
            "forgo", parked_as, group_of(tuple(limits), weight), self._copies_seconds
        )
        return bool(given_up)

    def cancel(self, task_id: str) -> bool:
        """Take a task out of the waiting room; return whether it waited.

        Its message goes back to its queue; a worker discards it as revoked and tells its
        canvas.
        """
        return self._keyspace.run(self.cancelling(task_id))

    def cancelling(self, task_id: str) -> Steps[bool]:
        """Return the steps of ``cancel``."""
        return bool((yield from self.calling_and_handing_over("cancel", task_id)))

    def cancel_limit(self, limit: str) -> Iterator[int]:
        """Cancel all waiters that a limit has now, in steps; yield how many each step took out."""
        groups = [
            group
            for some, _ in groups_in_order(self._keyspace)
            for group in some
            if limit in read_group(group)[0]
        ]
        for group in groups:
            yield from self._cancel_group(group)

    def _cancel_group(self, group: str) -> Iterator[int]:
        key = self._keyspace.keys.group(group)
        # Leave out later waiters, which would make this endless.
        waiters: Any = self._keyspace.redis.zcard(key)
        last: Any = self._keyspace.redis.zrange(key, -1, -1, withscores=True)
        ticket = int(last[0][1]) if last else 0
        for done in range(0, waiters, CANCEL_BATCH):
            most = min(waiters - done, CANCEL_BATCH)
            yield self.call_and_hand_over("cancel_first", group, ticket, most)

    def drain(self) -> Iterator[int]:
        """Give all waiters back to the broker, in steps; yield how many each step gave."""
        more = 1
        while more:
            count, more, outbox = self._keyspace.call("drain", DRAIN_BATCH).reply
            self._send(outbox)
            yield count

    def purge(self) -> Iterator[tuple[int, int]]:
        """Throw away the messages of all waiters there are now, in steps; nobody is told.

        Callers outside of tasks ask again and keep their place.

        Yields:
            how many a step took out of the room, and how many of them it threw away.
        """
        keys = self._keyspace.keys
        given_out: Any = self._keyspace.redis.get(keys.ticket)
        # Leave out later waiters, which would make this endless.
        last = int(given_out or self._keyspace.now() * 1000)
        groups = [group for some, _ in groups_in_order(self._keyspace) for group in some]
        sizes = self._keyspace.for_each(groups, lambda pipe, group: pipe.zcard(keys.group(group)))
        for some in _portions(sizes, PURGE_BATCH):
            taken, thrown = self._keyspace.call("purge", last, *some).reply
            yield taken, thrown

    def sweep(self, *, now: bool = False) -> int:
        """Do the work that no task's own call does (``sweep.lua``), if it is due; in bounded steps.

        Args:
            now: do it even if it is not due.

        Returns:
            how many tokens were taken back.
        """
        return self._keyspace.run(self.sweeping(now=now))

    def sweeping(self, *, now: bool = False) -> Steps[int]:
        """Return the steps of ``sweep``."""
        total, period = 0, 0.0 if now else SWEEP_PERIOD
        ends = time.monotonic() + SWEEP_SECONDS
        for _ in range(SWEEP_CALLS):
            (due, taken, more, outbox), _ = yield self._sweep(period)
            total += taken
            self._send(outbox)
            if not due or not more or time.monotonic() > ends:
                break
            period = 0.0
        else:
            # Checking limits again may never end; the hand-over must not wait for it.
            yield from self.advancing(ends - time.monotonic())
        return total

    def _sweep(self, period: float) -> Script:
        return Script("sweep", (str(period), SWEEP_BATCH,
            str(RECHECK_SECONDS), str(self.patience), str(COLLECT_SECONDS), self.steps,
        ))  # fmt: skip

    def recheck(self) -> None:
        """Hand over the room that a change of the configuration made.

        Raises:
            LimiterUnavailable: Redis can't be asked; the next sweep does it.
        """
        more, outbox = self._keyspace.call("advance", 1, self.steps).reply
        self._send(outbox)
        if more:
            self.advance(CHANGE_SECONDS)

    def advance(self, seconds: float) -> bool:
        """Go on with a hand-over for this many seconds; return whether there is more to do."""
        return self._keyspace.run(self.advancing(seconds))

    def advancing(self, seconds: float) -> Steps[bool]:
        """Return the steps of ``advance``."""
        ends = time.monotonic() + seconds
        more = 1
        while more and time.monotonic() < ends:
            (more, outbox), _ = yield Script("advance", (0, self.steps))
            self._send(outbox)
        return bool(more)

    def watch_moments(self, watcher: str) -> bool:
        """Return whether this watcher is the one of all that watches the moments.

        Args:
            watcher: a unique name; to stay the one, it asks again within ``WATCH_SECONDS``.
        """
        key = self._keyspace.keys.moments_watched
        pipe = self._keyspace.pipeline()
        pipe.set(key, watcher, nx=True, px=int(1000 * WATCH_SECONDS))
        pipe.get(key)
        is_mine: bool = pipe.execute()[1] == watcher.encode()
        if is_mine:
            self._keyspace.redis.pexpire(key, int(1000 * WATCH_SECONDS))
        return is_mine

    def meet_moments(self) -> float | None:
        """Hand over the room of limits that have opened by themselves.

        Returns:
            seconds until the next moment that somebody waits for; None if there is none.
        """
        return self._keyspace.run(self.meeting_moments())

    def meeting_moments(self) -> Steps[float | None]:
        """Return the steps of ``meet_moments``."""
        first = ("ZRANGE", self._keyspace.keys.moments, 0, 0, "WITHSCORES")
        moments, now = yield Commands((first, ("TIME",)))
        if not moments:
            return None
        seconds = float(moments[1]) - unix_seconds(now)
        if seconds <= 0:
            yield from self.advancing(MOMENT_SECONDS)
        return max(0.0, seconds)

    def claim(self) -> list[tuple[int, bytes]]:
        """Take messages out of the outbox, to send them to the broker and ``confirm`` them.

        Returns:
            number and message of each. Another process may take those that are not confirmed
            within ``CLAIM_SECONDS``.
        """
        reply = self._keyspace.call("claim", CLAIM_BATCH, CLAIM_SECONDS).reply
        return [(int(number), message) for number, message in zip(*[iter(reply)] * 2, strict=True)]

    def confirm(self, number: int) -> None:
        """Record that the broker has a message of the outbox, so that it is never sent again.

        Raises:
            LimiterUnavailable: Redis can't be asked; the message may be sent again.
        """
        self._keyspace.call("confirm", number)

    def call_and_hand_over(self, verb: str, *args: str | int | bytes) -> Any:
        """Call a script that hands room over, and repeat briefly if that takes more calls.

        Returns:
            the first part of its reply.
        """
        return self._keyspace.run(self.calling_and_handing_over(verb, *args))

    def calling_and_handing_over(self, verb: str, *args: str | int | bytes) -> Steps[Any]:
        """Return the steps of ``call_and_hand_over``."""
        (answer, more, outbox), _ = yield Script(verb, (*args, self.steps))
        self._send(outbox)
        if more:
            yield from self.advancing(RELEASE_SECONDS)
        return answer

    def _send(self, outbox: int) -> None:
        if outbox and self._deliver:
            self._deliver()


def _portions(sizes: Iterable[tuple[str, int]], most: int) -> Iterator[list[str | int]]:
    """Yield groups with the number of their waiters, in parts of a bounded total."""
    portion: list[str | int] = []
    left = most
    for group, waiters in sizes:
        rest = waiters
        while rest:
            some = min(rest, left)
            portion += group, some
            rest, left = rest - some, left - some
            if not left:
                yield portion
                portion, left = [], most
    if portion:
        yield portion
