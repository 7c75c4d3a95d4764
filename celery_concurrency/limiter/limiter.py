"""The limiter: a run holds tokens in all of its limits at once, or in none.

A *run* is one execution of a task, named by a token that begins with the task's id. A
redelivered or retried task is another run. Runs without room wait in ``waiting_room.py``;
``worker/run.py`` has the run as Celery sees it.
"""

import json
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Unpack

from redis import Redis

from celery_concurrency.errors import (
    ConfigConflict,
    LimiterUnavailable,
    OutOfMemory,
    RunEnded,
    WeightTooHigh,
)
from celery_concurrency.limiter.acquire_arguments import Facts, arguments
from celery_concurrency.limiter.adaptive import AdaptiveLimits
from celery_concurrency.limiter.async_acquire import AsyncAcquire, Hold
from celery_concurrency.limiter.blocking_acquire import BlockingAcquire
from celery_concurrency.limiter.config.store import ConfigStore
from celery_concurrency.limiter.cooldowns import Cooldowns
from celery_concurrency.limiter.inspect.usage import Usage, read_usage
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.later import Later
from celery_concurrency.limiter.leases import Lease, Leases
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import (
    Denied,
    Granted,
    Outcome,
    Repeated,
    Shut,
    Skipped,
    Ticket,
    not_waiting,
    rate_of,
)
from celery_concurrency.limiter.refusals import DEFAULT_GROW, DEFAULT_MOST, TOLD_SECONDS, Refusal
from celery_concurrency.limiter.stats.counters import Stats
from celery_concurrency.limiter.stats.durations import Durations
from celery_concurrency.limiter.steps import Blocking, Script, Steps
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.limiter.weights import weight_value
from celery_concurrency.scripts.constants import SHORTEST_LEASE

DEFAULT_PREFIX: Final = "concurrency"

#: How often acquire is called again because its reply asks for it (a new dimension, no flat
#: configuration). Each reason comes once, unless the configuration changes again.
ROUNDS: Final = 5
#: Seconds from the grant for which Redis remembers, at least, which run began on a parked message.
BEGUN_SECONDS: Final = 86_400


#: Replies of acquire that give the run no tokens, though another copy may get them later.
_REFUSALS: Final = (
    *(b"denied", b"shut", b"probed", b"behind", b"skipped", b"crowded", b"overdue"),
    *(b"heavy", b"running", b"done"),
)


class Limiter:
    """Grants and releases tokens; safe to share between threads, not across a fork.

    Args:
        redis: a client made by ``connection.connect``.
        prefix: begins the name of every key; in a Redis Cluster it gets a hash tag, as in
            ``{concurrency}``, so that all keys are in one slot.
        default_config: changes to the built-in default configuration.
        deliver: called when the outbox has messages to send to the broker.
        copies_seconds: seconds after the end of a run in which a second copy of its parked
            message is recognized.

    Attributes:
        config: the configuration, to read and change.
        waiting_room: where denied messages wait.
        leases: renews the tokens of living runs.
        cooldowns: limits that admit nobody until a given time.
        adaptive: limits whose maximum moves by itself.
        stats, durations: counters, and how long runs waited and held.
        dimensions: the user's own dimensions, as the last call knew them.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str = DEFAULT_PREFIX,
        default_config: Mapping[str, Any] | None = None,
        *,
        deliver: Callable[[], None] | None = None,
        copies_seconds: int = 7200,
    ) -> None:
        self.keyspace = Keyspace(redis, prefix)
        self.redis, self.prefix = redis, self.keyspace.prefix
        self.waiting_room = WaitingRoom(self.keyspace, deliver, copies_seconds)
        self.config = ConfigStore(self.keyspace, default_config, self.waiting_room.recheck)
        self.stats = Stats(self.keyspace)
        self.durations = Durations(self.keyspace)
        self.leases = Leases(self.keyspace)
        self.cooldowns = Cooldowns(self.keyspace, self.waiting_room, self.config)
        self.adaptive = AdaptiveLimits(self.keyspace, self.waiting_room, self.config)
        self._copies_seconds = copies_seconds
        # The scripts check it: they refuse a call that lacks a dimension.
        self.dimensions: tuple[str, ...] = ()
        # Runs that may still have an acquire on its way to Redis.
        self._doubtful: set[str] = set()
        self._later = Later(lambda token: self._release(token, began=False))
        self._blocking = BlockingAcquire(
            self.keyspace, self.waiting_room, self.trying, self._later, self.lease_of, self.release
        )
        self._async = AsyncAcquire(
            self.keyspace, self.waiting_room, self.trying, self._later, self.lease_of,
            self.releasing,
        )  # fmt: skip

    def acquire(self, *, timeout: float | None = None, weight: int = 1, **tags: object) -> Hold:
        """Hold tokens outside of tasks while a block runs, and wait for room as tasks do.

        >>> with limiter.acquire(account="acc123", platform="douyin", timeout=60) as lease:
        ...     publish()

        In an event loop of asyncio, ``async with`` does the same without blocking it. What
        its lease asks Redis is awaited (``AsyncLease``). A cancellation gives everything
        back. A Redis Cluster can't be asked so.

        >>> async with limiter.acquire(account="acc123", timeout=60) as lease:
        ...     await publish()

        Args:
            timeout: how many seconds to wait at most; None waits for ever.
            weight: how many places to take in each shared limit (``global``, platform, task
                type), 1 to 100; in the others it takes one.
            tags: ``platform``, ``account``, ``type``, and the user's own dimensions.

        Raises:
            LimitReached: there was no room in time.
            TooManyWaiting: there was none, and as many wait for a limit as may.
            WaitedTooLong: it waited for a limit for as long as it may.
            InvalidTag: a tag names no limit, or the weight is not one.
            WeightTooHigh: the weight is more than one of the limits ever has.
            LimiterUnavailable: Redis can't be reached. If it is away at the end of the
                block, a thread gives the tokens back later.
            RunEnded: the lease ended before the answer came, for example because the
                process was suspended; call again.
        """
        asked = tags, timeout, weight_value("weight", weight)
        return Hold(lambda: self._blocking.hold(*asked), lambda: self._async.hold(*asked))

    def try_acquire(
        self,
        token: str,
        tags: Mapping[str, object],
        *,
        runs_anyway: bool = False,
        **facts: Unpack[Facts],
    ) -> Outcome:
        """Take a token in each limit of a run, or in none.

        Args:
            token: the run; asking again for a run that holds its tokens changes nothing.
            tags: the tags that decide its limits (``limits.limits_of``).
            task, worker: names that listings show.
            rank: 0 for the highest priority, 1 more for each lower one, at most 255.
            ticket: where its message waited before; None if it did not.
            lease: seconds after which the tokens are taken back unless they are renewed
                (``leases.beat``); None for the configured ``timeout``.
            begun: the run has already begun, and is counted whether there is room or not.
            runs_anyway: the run begins even without an answer, and is counted later. So without
                an answer, the tokens that it may hold are not given up.
            skips: it is dropped where one of its own limits (``limits.own_limits``) is busy.
            replaces: it takes the place of an older one of its task, if one waits.
            has_begun: an earlier run of its task has begun, so it may wait however many do.
            weight: how many places it takes in each shared limit (``weights.places_in``).

        Raises:
            TooManyWaiting: it would have to wait, and as many do as may.
            WaitedTooLong: it would have to wait on, and has for as long as it may.
            InvalidTag: a tag names no limit.
            WeightTooHigh: the weight is more than one of the limits ever has.
            RunEnded: it was given up before, or its tokens have expired.
            ConfigConflict: the configuration changed during every attempt.
            OutOfMemory: Redis has no memory for it; the run holds nothing.
            LimiterUnavailable: Redis can't be asked; the run holds nothing, or will lose it soon.
        """
        return self.keyspace.run(self.trying(token, tags, runs_anyway=runs_anyway, **facts))

    def trying(
        self,
        token: str,
        tags: Mapping[str, object],
        *,
        runs_anyway: bool = False,
        **facts: Unpack[Facts],
    ) -> Steps[Outcome]:
        """Return the steps of ``try_acquire``."""
        before = facts.get("ticket")
        parked_as, weight = before.parked_as if before else "", facts.get("weight", 1)
        copies_seconds = max(BEGUN_SECONDS, self._copies_seconds)
        lease = facts.get("lease")
        if lease is not None:
            facts["lease"] = max(lease, SHORTEST_LEASE)
        keeps = facts.get("begun", False) or runs_anyway
        for _ in range(ROUNDS):
            limits = limits_of(tags, self.dimensions)
            args = arguments(limits, self.dimensions, copies_seconds, **facts)
            match (yield from self._asking(token, *args, keeps=keeps)):
                case [b"granted", expiry, fence]:
                    return Granted(token, limits, int(expiry), int(fence))
                case [b"denied", limit, held, most, number]:
                    ticket = Ticket(int(number), parked_as)
                    return Denied(
                        token, limits, limit.decode(), int(held), int(most), ticket, weight=weight
                    )
                case [b"shut", limit, until, seconds, cause, number]:
                    ticket = Ticket(int(number), parked_as)
                    shut = Shut(float(until), float(seconds), rate_of(cause.decode()))
                    return Denied(
                        token, limits, limit.decode(), None, None, ticket, shut, weight=weight
                    )
                case [b"probed", limit, probe, number]:
                    ticket = Ticket(int(number), parked_as)
                    return Denied(
                        token, limits, limit.decode(), None, None, ticket, probe=probe.decode(),
                        weight=weight,
                    )  # fmt: skip
                case [b"behind", limit, number]:
                    ticket = Ticket(int(number), parked_as)
                    return Denied(token, limits, limit.decode(), None, None, ticket, weight=weight)
                case [b"heavy", limit, most]:
                    raise WeightTooHigh(limit.decode(), int(most), weight)
                case [b"skipped", limit]:
                    return Skipped(token, limits, limit.decode())
                case [b"crowded" | b"overdue" as why, limit, bound, number]:
                    raise not_waiting(why.decode(), limit.decode(), int(bound), int(number))
                case [b"running", other]:
                    return Repeated(other.decode())
                case [b"done"]:
                    return Repeated(None)
                case [b"dimensions", names]:
                    self.dimensions = tuple(json.loads(names))
                case [b"unconfigured"]:
                    yield Blocking(self.config.sync)
                case _:
                    self._doubtful.discard(token)
                    raise RunEnded(f"run {token} has ended: it gets no more tokens")
        raise ConfigConflict()

    def join(
        self, waiter: Waiter, rank: int, here: Mapping[str, Any], queued: bytes = b""
    ) -> list[bytes] | None:
        """Let a message wait if its group already waits, because its run would be denied too.

        Args:
            waiter: the waiter, without a ticket; its limits follow from ``dimensions``.
            rank: the rank of its priority, 0 for the highest.
            here: what else to write on this server if it waits; see ``join.lua``.
            queued: its message, if that is still in its queue.

        Returns:
            the messages that come next in its queue, if ``here`` asks for them; None if it
            does not wait: it has no place, and its run has to ask.

        Raises:
            OutOfMemory: Redis has no memory for it; nothing was done.
            LimiterUnavailable: Redis can't be asked. The message may wait now, or when a late
                copy of the call arrives; ``waiting_room.park`` it to be sure.
        """
        reply, lost = self.waiting_room.join(waiter, rank, self.dimensions, here, queued)
        if reply[0] == b"dimensions":
            self.dimensions = tuple(json.loads(reply[1]))
        elif reply[0] == b"joined":
            return list(reply[1])
        elif reply[0] not in (b"alone", b"left", b"crowded", b"forbidden"):
            return []
        if lost:
            raise LimiterUnavailable(f"a copy of the call for {waiter.run} may still arrive")
        return None

    def _asking(self, token: str, *args: str, keeps: bool) -> Steps[Any]:
        """Call acquire once; without a reply, schedule a release unless the run begins anyway."""
        try:
            reply, lost = yield Script("acquire", (token, *args))
        except BaseException as exc:
            # Also after a soft time limit or a cancellation, which may come before the reply.
            if keeps:
                self._doubtful.add(token)
            elif token in self._doubtful or not isinstance(exc, OutOfMemory):
                # A refused call took no tokens, so release nothing: a mark would take memory.
                self.give_up(token)
            raise
        if lost:
            self._doubtful.add(token)
        # An earlier copy of the call, or an earlier call, may still take tokens.
        if token in self._doubtful and reply[0] in _REFUSALS:
            self._later.add(token)
        return reply

    def give_up(self, token: str) -> None:
        """Release, soon and for good, whatever a run holds or may still be granted."""
        self._doubtful.add(token)
        self._later.add(token)

    def refuse(
        self,
        token: str,
        limits: Sequence[str],
        limit: str,
        seconds: float,
        *,
        grow: float = DEFAULT_GROW,
        most: float = DEFAULT_MOST,
        reason: str = "",
        by: str = "",
    ) -> float:
        """Report that a platform refused a run, before the run is released.

        One of its limits cools down, and a probe runs first afterwards; its adaptive limits fall.
        A run reports one refusal per limit: repeats change nothing.

        Args:
            token: the run.
            limits: all of its limits.
            limit: the one that cools down.
            seconds: for how long, up to ``cooldowns.MAX_SECONDS``; 0 for no cool-down.
            grow: if this run was the probe, the last seconds are multiplied by this; 1 or more.
            most: seconds up to which it grows.
            reason: why, for people; one line.
            by: who reports it.

        Returns:
            when the cool-down ends, in Unix seconds of the Redis server; 0 if there is none.

        Raises:
            InvalidCooldown: a value is out of bounds, or the run does not have this limit.
            LimiterUnavailable: Redis can't be asked; a thread keeps trying for
                ``TOLD_SECONDS``.
        """
        return self.keyspace.run(
            self.refusing(token, limits, limit, seconds, grow=grow, most=most, reason=reason, by=by)
        )

    def refusing(
        self,
        token: str,
        limits: Sequence[str],
        limit: str,
        seconds: float,
        *,
        grow: float = DEFAULT_GROW,
        most: float = DEFAULT_MOST,
        reason: str = "",
        by: str = "",
    ) -> Steps[float]:
        """Return the steps of ``refuse``."""
        refusal = Refusal(token, tuple(limits), limit, seconds, grow, most, reason, by)
        told = time.monotonic()
        try:
            return (yield from refusal.telling(self.waiting_room))
        except (LimiterUnavailable, CancelledError):

            def tell(_: str) -> None:
                seconds = time.monotonic() - told
                if seconds < TOLD_SECONDS:
                    self.keyspace.run(refusal.after(seconds).telling(self.waiting_room))

            self._later.add(f"{token} refused {limit}", tell)
            raise

    def lease_of(self, granted: Granted, seconds: float) -> Lease:
        """Return what a run holds, as an object for the run itself.

        Args:
            granted: the limiter's answer.
            seconds: how long its tokens last without being renewed.
        """
        return Lease(granted, self.keyspace, seconds, self.cooldowns, self.refusing)

    def release(
        self, token: str, *, done: bool = False, began: bool = True, succeeded: bool = False
    ) -> bool:
        """Release a run's tokens and hand the room to waiters; safe to repeat.

        Args:
            token: the run.
            done: the run came to its end, so a second copy of its message is dropped. If False
                (its process died), a second copy runs.
            began: its body may have begun. If False, its start does not count.
            succeeded: it succeeded, so it opens the limits in which it was the probe.

        Returns:
            True if it held the tokens, False if they had expired or were never granted.

        Raises:
            LimiterUnavailable: Redis can't be asked; a thread keeps trying.
        """
        return self.keyspace.run(self.releasing(token, done=done, began=began, succeeded=succeeded))

    def releasing(
        self, token: str, *, done: bool = False, began: bool = True, succeeded: bool = False
    ) -> Steps[bool]:
        """Return the steps of ``release``."""
        self._later.discard(token)
        try:
            return (yield from self._releasing(token, done, began, succeeded))
        except (LimiterUnavailable, CancelledError):
            self._later.add(token, lambda token: self._release(token, done, began, succeeded))
            raise

    def count_later(self, token: str, tags: Mapping[str, object], **facts: Any) -> None:
        """Count a run that began while Redis was away, as soon as Redis is back.

        Args:
            token: the run; ``release`` ends it, whether it was counted by then or not.
            tags, facts: as for ``try_acquire``.
        """

        def count(token: str) -> None:
            self.try_acquire(token, tags, begun=True, **facts)

        self._later.add(token, count)

    def _release(
        self, token: str, done: bool = False, began: bool = True, succeeded: bool = False
    ) -> bool:
        return self.keyspace.run(self._releasing(token, done, began, succeeded))

    def _releasing(self, token: str, done: bool, began: bool, succeeded: bool) -> Steps[bool]:
        mark = int(token in self._doubtful)
        copies_seconds = self._copies_seconds if done else ""
        held = yield from self.waiting_room.calling_and_handing_over(
            "release", token, mark, copies_seconds, _ending(began, succeeded)
        )
        self._doubtful.discard(token)
        return bool(held)

    def usage(self) -> Usage:
        """Return how many living tokens each limit has."""
        return read_usage(self.keyspace, self.config.sync())


def _ending(began: bool, succeeded: bool) -> str:
    """Return how a run ended, in the script's form."""
    if not began:
        return "unbegun"
    return "succeeded" if succeeded else ""
