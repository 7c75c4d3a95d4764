"""The simulation beside a real run: processes that call a real server as simulated ones do.

They take messages from a list, ask, sleep, release and park by the real scripts, and each has a
worker's real housekeeping. What they leave out is Celery, which needs more of two processors than
the server does. The tasks are so long that the server is busy for ``BUSY`` of the time, and
the processors are not.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from random import Random
from typing import Any

from redis import Redis

from benchmarks.calls import LEASE, main_thread
from benchmarks.crowd import message_of, tags_of
from benchmarks.fleet import Costs, Fleet, Found
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import Denied
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.limiter.workers import WorkerFacts
from celery_concurrency.scripts.constants import PARKED
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.housekeeping import Housekeeping
from celery_concurrency.worker.message import to_bytes
from celery_concurrency.worker.parking import ticket_of
from tests.support.workers import settle

WORKERS, PROCESSES = 8, 8
#: The share of the time in which the server is to be busy.
BUSY = 0.2
#: Seconds to get going before anything counts.
WARM_UP = 1.5


def fleet_for(costs: Costs) -> Fleet:
    """Return the fleet that keeps the server so busy."""
    long = Fleet(WORKERS, PROCESSES, task_seconds=1e9)
    short = replace(long, task_seconds=1.0)
    idle = long.demand(costs)
    return replace(long, task_seconds=(short.demand(costs) - idle) / (BUSY - idle))


def of_a_list(costs: Costs) -> Costs:
    """Return the costs where messages are in a plain list, as they are here."""
    return replace(costs, verbs={**costs.verbs, "message": costs.verbs["list"]})


def run(server: Server, fleet: Fleet, seconds: float, name: str) -> Found:
    """Let real processes do what a fleet does, and count for so many seconds.

    Args:
        server: one that is in use already: other prefixes are left alone.
        name: a new one: how the keys of this run begin.
    """
    redis = connect(server.url())
    settle(redis, name)
    limits = {"global_max": 0, "account_max": fleet.limit, "platform_max": {"*": 0}}
    Limiter(redis, name).config.update(limits)
    context = multiprocessing.get_context("fork")
    plan = _Plan(
        server.url(), name, fleet, seconds, context.Semaphore(0), context.Event(),
        context.Value("d", 0.0),
    )  # fmt: skip
    inbox, outbox = context.Pipe(duplex=False)
    lock = context.Lock()
    everyone = [
        context.Process(target=_work, args=(plan, number, outbox, lock), daemon=True)
        for number in range(fleet.workers)
    ]
    everyone.append(context.Process(target=_send_all, args=(plan,), daemon=True))
    try:
        for one in everyone:
            one.start()
        plan.start(len(everyone))
        used = _used(redis, plan)
        parts = [_received(inbox) for _ in range(fleet.workers)]
    finally:
        for one in everyone:
            one.kill()
            one.join()
        redis.close()
    return Found(
        utilisation=used,
        tasks_per_second=sum(part.ended for part in parts) / seconds,
        call_seconds=sorted(length for part in parts for length in part.acquires),
        waited=sum(part.denied for part in parts) / max(1, sum(part.arrived for part in parts)),
    )


def _used(redis: Redis, plan: _Plan) -> float:
    """Return the share of the time that counts in which the server was busy."""
    time.sleep(max(0.0, plan.begin - time.monotonic()))
    used, began = main_thread(redis), time.monotonic()
    time.sleep(max(0.0, plan.end - time.monotonic()))
    return (main_thread(redis) - used) / (time.monotonic() - began)


def ratios(simulated: Found, real: Found) -> dict[str, float]:
    """Return simulated over real, of each of what both say and the clients don't blur."""
    return {
        "tasks a second": simulated.tasks_per_second / real.tasks_per_second,
        "the server's time for each": (simulated.utilisation / simulated.tasks_per_second)
        / (real.utilisation / real.tasks_per_second),
        "tasks that had to wait": simulated.waited / real.waited,
    }


def off(found: dict[str, float]) -> float:
    """Return how far off the worst of these ratios is: itself, or its inverse if that is more."""
    return max(max(ratio, 1 / ratio) for ratio in found.values())


@dataclass(frozen=True)
class _Plan:
    """What each process is to do: the fleet's work, and to count from ``begin`` to ``end``.

    Attributes:
        url: of the server.
        prefix: of all keys.
        fleet: what it does.
        seconds: that count.
        ready, started, clock: shared by all, so that they begin together.
    """

    url: str
    prefix: str
    fleet: Fleet
    seconds: float
    ready: Any
    started: Any
    clock: Any

    def start(self, processes: int) -> None:
        """Let all begin at once, when so many are ready."""
        for _ in range(processes):
            assert self.ready.acquire(timeout=60), "a process did not start"
        self.clock.value = time.monotonic()
        self.started.set()

    def wait(self) -> None:
        """Say that this process is ready, and wait for the others."""
        self.ready.release()
        self.started.wait()

    @property
    def begin(self) -> float:
        """When it begins to count."""
        return float(self.clock.value) + WARM_UP

    @property
    def end(self) -> float:
        """When all of it ends."""
        return self.begin + self.seconds

    @property
    def queue(self) -> str:
        """The key of the list with the messages."""
        return f"{self.prefix}-queue"

    def counts(self) -> bool:
        return self.begin <= time.monotonic() < self.end


@dataclass
class _Part:
    """What one worker counted."""

    arrived: int = 0
    denied: int = 0
    ended: int = 0
    acquires: list[float] = field(default_factory=list)


def _received(inbox: Connection) -> _Part:
    assert inbox.poll(60), "a process did not report"
    part: _Part = inbox.recv()
    return part


def _send_all(plan: _Plan) -> None:
    """Send messages, of which one does not depend on the other."""
    redis, random = connect(plan.url), Random(0)  # noqa: S311 - nothing secret about it
    accounts = round(plan.fleet.accounts * plan.fleet.workers * plan.fleet.processes)
    plan.wait()
    due = plan.begin - WARM_UP
    while due < plan.end:
        time.sleep(max(0.0, due - time.monotonic()))
        messages = []
        # More than one where this process had to wait for a processor.
        while due <= time.monotonic():
            message = message_of(str(uuid.uuid4()))
            message["headers"]["account"] = random.randrange(accounts)
            messages.append(to_bytes(message))
            due += random.expovariate(plan.fleet.rate)
        if messages:
            redis.lpush(plan.queue, *messages)


def _work(plan: _Plan, number: int, outbox: Connection, lock: Any) -> None:
    """Be a worker until the end; then say what was counted."""
    worker = _Worker(plan, number)
    parts: SimpleQueue[_Part] = SimpleQueue()
    threads = [
        threading.Thread(target=lambda at=at: parts.put(worker.process(at)))
        for at in range(plan.fleet.processes)
    ]
    plan.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = _Part()
    for _ in threads:
        part = parts.get()
        total.arrived += part.arrived
        total.denied += part.denied
        total.ended += part.ended
        total.acquires += part.acquires
    with lock:
        outbox.send(total)


class _Beats(Heartbeat):
    """A worker's heartbeat, without Celery's list of those who run."""

    def __init__(self, limiter: Limiter, worker: WorkerFacts) -> None:
        super().__init__(limiter, LEASE, worker=worker, processes=False)
        self.tokens: dict[str, None] = {}

    def _active(self) -> dict[str, Any]:
        return dict.fromkeys(list(self.tokens))


class _Worker:
    """Threads that run tasks, and a worker's housekeeping beside them."""

    def __init__(self, plan: _Plan, number: int) -> None:
        self._plan = plan
        self._name = f"w{number}@host"
        self._limiter = Limiter(connect(plan.url), plan.prefix)
        facts = WorkerFacts(self._name, "1", "prefork", plan.fleet.processes)
        self._beats = _Beats(self._limiter, facts)
        # The accounts that wait, as far as this worker knows: what its door is in Celery.
        self._known: set[int] = set()
        Housekeeping(self._limiter, self._beats).start()

    def process(self, number: int) -> _Part:
        """Take messages and run them, until the end."""
        part, random = _Part(), Random(f"{self._name} {number}")  # noqa: S311
        while time.monotonic() < self._plan.end:
            popped = self._limiter.redis.brpop(self._plan.queue, timeout=1)
            if popped:
                self._receive(popped[1], part, random)
        return part

    def _receive(self, text: bytes, part: _Part, random: Random) -> None:
        headers = json.loads(text)["headers"]
        account, parked = headers["account"], headers.get(PARKED)
        token = f"{headers['id']}:{uuid.uuid4().hex[:16]}"
        counts = self._plan.counts()
        part.arrived += counts and not parked
        waiter = self._waiter(token, headers["id"], account, text)
        if not parked and self._joins(account, waiter):
            part.denied += counts
            return
        ticket = ticket_of(parked) if parked else None
        began = time.perf_counter()
        outcome = self._limiter.try_acquire(
            token, tags_of(account), task="proj.tasks.publish", worker=self._name,
            ticket=ticket, lease=LEASE,
        )  # fmt: skip
        took = time.perf_counter() - began
        if isinstance(outcome, Denied):
            assert outcome.ticket is not None
            self._known.add(account)
            part.denied += counts and not parked
            place = replace(
                waiter, ticket=outcome.ticket.number, parked_as=outcome.ticket.parked_as
            )
            self._limiter.waiting_room.park(place)
            return
        if counts and not parked:
            part.acquires.append(took)
        self._beats.tokens[token] = None
        time.sleep(random.expovariate(1 / self._plan.fleet.task_seconds))
        self._beats.tokens.pop(token)
        self._limiter.release(token, done=True)
        part.ended += self._plan.counts()

    def _joins(self, account: int, waiter: Waiter) -> bool:
        """Return whether a message waits by its worker's door, as others of its account do."""
        if account not in self._known:
            return False
        if self._limiter.join(waiter, 0, {}) is not None:
            return True
        self._known.discard(account)
        return False

    def _waiter(self, token: str, task_id: str, account: int, text: bytes) -> Waiter:
        limits = limits_of(tags_of(account), self._limiter.dimensions)
        return Waiter(
            run=token, task_id=task_id, retries=0, replaced=0, limits=limits, ticket=None,
            message=text, hold=LEASE, queue=self._plan.queue,
        )  # fmt: skip
