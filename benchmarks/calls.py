"""What a fleet's calls take of the server's processor, and what it takes of its memory.

Measured by the server itself, on one that keeps its data: nobody else asks, and a thousand
tasks wait, as in a fleet there always are some. ``fleet.py`` simulates fleets by these times.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from statistics import fmean, median, pvariance
from typing import Any

from kombu import Connection
from redis import Redis

from benchmarks.crowd import QUEUE, Crowd, message_of, tags_of
from benchmarks.fleet import Costs, Verb
from benchmarks.growth import FEW, park, release
from celery_concurrency import scripts
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.leases import BATCH
from celery_concurrency.limiter.waiting_room import COLLECT_SECONDS, STEPS, SWEEP_BATCH
from celery_concurrency.limiter.workers import WorkerFacts
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.housekeeping import Housekeeping
from tests.support.workers import settle

#: Tasks of each kind in a round.
TASKS = 200
TICKS = 40
#: Seconds after which a worker's tokens are taken back.
LEASE = 30
#: Seconds for which nothing sweeps by itself.
PATIENCE = 600
#: Tasks that run at once while the memory of one is measured.
RUNNING = 2_000
#: How finely the times of single calls are kept; without the longest, which were interrupted.
QUANTILES = 200


class Gauge:
    """Measures in turns, so that other things can be measured between them.

    Args:
        server: one that keeps its data; it is emptied.

    Attributes:
        run_bytes: of a task that runs.
    """

    def __init__(self, server: Server) -> None:
        self._url = server.url()
        self._redis = redis = connect(self._url)
        redis.flushall()
        settle(redis)
        self._crowd = crowd = Crowd(redis, "concurrency")
        before = redis.info("memory")["used_memory"]
        crowd.hold(iter(range(TASKS, TASKS + RUNNING)))
        self.run_bytes = round((redis.info("memory")["used_memory"] - before) / RUNNING)
        crowd.park(iter(range(TASKS, TASKS + FEW)))
        self._turns: list[_Turn] = []
        _Turn(redis, crowd, self._url)  # it warms up

    def measure(self, turns: int) -> None:
        """Measure each verb once in each of so many turns."""
        for _ in range(turns):
            self._turns.append(_Turn(self._redis, self._crowd, self._url))

    def costs(self, latest: int = 0, *, undisturbed: bool = False) -> Costs:
        """Return what the calls take.

        Args:
            latest: of so many turns; 0 for all.
            undisturbed: the least of them, as on a server of its own: other load on the
                machine can only add to it. Else the median, for what is measured meanwhile.
        """
        turns = self._turns[-latest:]
        of: Callable[[list[float]], float] = min if undisturbed else median
        verbs = {}
        for name in turns[0].verbs:
            all_ = [turn.verbs[name] for turn in turns]
            trips = round(median(one.trips for one in all_))
            verbs[name] = Verb(of([one.seconds for one in all_]), trips)
        spreads = [shape(turn.lengths) for turn in turns]
        spread = min(spreads, key=pvariance) if undisturbed else sum(spreads, ())
        return Costs(verbs, of([turn.trip for turn in turns]), spread)


class _Turn:
    """Each verb once, for so many tasks of an account each.

    Attributes:
        verbs: what each of them took, for one task.
        trip: seconds that an acquire took its client beyond the server's own.
        lengths: of single calls of a pair, as multiples of their means.
    """

    def __init__(self, redis: Redis, crowd: Crowd, url: str) -> None:
        self.verbs: dict[str, Verb] = {}
        self.trip = 0.0
        self._redis, self._crowd = redis, crowd
        self._path_of_tasks()
        self._housekeeping()
        self._messages(url)
        self.lengths = list(_lengths(redis, crowd))

    def _path_of_tasks(self) -> None:
        crowd, limiter = self._crowd, self._crowd.limiter
        seconds: list[float] = []

        def acquire(account: int) -> None:
            begin = time.perf_counter()
            crowd.holders[account] = ask(limiter, account)
            seconds.append(time.perf_counter() - begin)

        self._each("acquire", acquire)
        self.trip = max(0.0, median(seconds) - self.verbs["acquire"].seconds)
        self._each("deny", lambda account: ask(limiter, account))
        self._each("park", lambda account: park(crowd, account))
        self._each("join", lambda account: _join(crowd, account))
        for _ in ("who was parked", "who joined"):
            self._each("hand over", lambda account: release(crowd, account))
            self._each("take over", crowd.take_over)
        self._redis.delete(QUEUE)
        self._each("release", lambda account: release(crowd, account))
        # Ticks do that, whoever's, for so many runs at a time.
        tallied = self._spent(limiter.durations.tally, 3 * TASKS)
        self.verbs["release"] = plus(self.verbs["release"], tallied.seconds)
        self.verbs["hand over"] = plus(self.verbs["hand over"], tallied.seconds)

    def _housekeeping(self) -> None:
        limiter, worker = self._crowd.limiter, WorkerFacts("w1@host", "1", "prefork", 8)
        keeping = Housekeeping(limiter, Heartbeat(limiter, LEASE, worker=worker))
        # In a fleet, one worker of all sweeps in a second.
        self._redis.set(f"{limiter.prefix}:sweep:next", time.time() + PATIENCE)
        self.verbs["tick"] = self._spent(lambda: repeat(keeping.tick), TICKS)
        self._redis.delete(f"{limiter.prefix}:sweep:next")
        tokens = [ask(limiter, account) for account in range(BATCH)]

        def beat(some: list[str]) -> None:
            limiter.leases.beat(some, LEASE, worker)

        beat(tokens)  # the first brings what they hold
        alone = self._spent(lambda: repeat(lambda: beat([])), TICKS)
        full = self._spent(lambda: repeat(lambda: beat(tokens)), TICKS)
        self.verbs["beat"] = alone
        self.verbs["token"] = Verb(max(0.0, full.seconds - alone.seconds) / BATCH, 0)
        for token in tokens:
            limiter.release(token)
        self.verbs["sweep"] = self._spent(lambda: repeat(lambda: _sweep(limiter)), TICKS)

    def _messages(self, url: str) -> None:
        """Send, receive and acknowledge messages, as Celery does."""
        with Connection(url) as connection:
            queue = connection.SimpleQueue("kombu")

            def message(_: int) -> None:
                queue.put(message_of(str(uuid.uuid4())))
                queue.get(timeout=5).ack()

            message(0)
            self._each("message", message)
            queue.close()

        def pushed_and_popped(_: int) -> None:
            self._redis.lpush("list", "a message")
            self._redis.brpop("list", 5)

        self._each("list", pushed_and_popped)

    def _each(self, name: str, call: Callable[[int], Any]) -> None:
        self.verbs[name] = self._spent(lambda: [call(account) for account in range(TASKS)], TASKS)

    def _spent(self, calls: Callable[[], Any], number: int) -> Verb:
        """Return what so many of these took, for one."""
        before = _Used.of(self._redis)
        calls()
        return before.until(_Used.of(self._redis), number)


class _Used:
    """What the server has used: seconds of its main thread, and requests that it has read."""

    def __init__(self, seconds: float, reads: int) -> None:
        self.seconds, self.reads = seconds, reads

    @classmethod
    def of(cls, redis: Redis) -> _Used:
        return cls(main_thread(redis), redis.info("stats")["total_reads_processed"])

    def until(self, after: _Used, number: int) -> Verb:
        # Each look is two requests itself.
        reads = (after.reads - self.reads - 2) / number
        return Verb((after.seconds - self.seconds) / number, max(1, round(reads)))


def main_thread(redis: Redis) -> float:
    """Return the seconds of processor that the server's only busy thread has used.

    Others write and close its files: they take from another processor.
    """
    info = redis.info("cpu")
    return float(info["used_cpu_sys_main_thread"] + info["used_cpu_user_main_thread"])


def ask(limiter: Limiter, account: int) -> str:
    """Let a new run of an account ask; return its token."""
    token = f"{uuid.uuid4()}:0123456789abcdef"
    facts: dict[str, Any] = {"task": "proj.tasks.publish", "worker": "w1@host", "lease": LEASE}
    limiter.try_acquire(token, tags_of(account), **facts)
    return token


def repeat(call: Callable[[], object]) -> None:
    """Call so many times as there are ticks."""
    for _ in range(TICKS):
        call()


def plus(verb: Verb, seconds: float) -> Verb:
    """Return a verb that takes so much more."""
    return verb._replace(seconds=verb.seconds + seconds)


def _join(crowd: Crowd, account: int) -> None:
    """Let one more task wait by the door, as it is noted by the broker as well."""
    waiter = crowd.waiter(account)
    unacked = {"key": "unacked", "index": "unacked_index", "tag": waiter.task_id}
    following = {"key": "celery", "most": 10}
    assert crowd.limiter.join(waiter, 0, {"unacked": unacked, "next": following}) is not None


def _sweep(limiter: Limiter) -> None:
    args = (0, SWEEP_BATCH, "-1", "-1", str(COLLECT_SECONDS), STEPS)
    scripts.call(limiter.redis, "sweep", limiter.prefix, *args)


def _lengths(redis: Redis, crowd: Crowd) -> Iterator[float]:
    """Yield how long single calls of a pair took, by the server's SLOWLOG; their mean is 1."""
    tokens: list[str] = []
    redis.config_set("slowlog-max-len", 10 * TASKS)
    for call in (
        lambda account: tokens.append(ask(crowd.limiter, account)),
        lambda account: crowd.limiter.release(tokens[account], done=True),
    ):
        redis.config_set("slowlog-log-slower-than", 0)
        redis.slowlog_reset()
        for account in range(TASKS):
            call(account)
        redis.config_set("slowlog-log-slower-than", -1)
        slow = redis.slowlog_get(10 * TASKS)
        some = [one["duration"] for one in slow if one["command"].startswith(b"EVALSHA")]
        yield from (length / fmean(some) for length in some)


def shape(lengths: list[float]) -> tuple[float, ...]:
    """Return equally likely values, of mean 1, that are spread as these are."""
    ordered = sorted(lengths)
    some = [ordered[int((at + 0.5) / QUANTILES * len(ordered))] for at in range(QUANTILES)]
    return tuple(value / fmean(some) for value in some)
