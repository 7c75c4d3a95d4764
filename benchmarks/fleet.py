"""A simulated fleet of workers that all call one script server.

The server does one call after the other, as Redis does, and takes for each what was measured
(``capacity.py``). Everything else is as in a real fleet: messages arrive in a queue, processes
take them, ask, run and release; tasks of a busy account wait and are handed over; each worker
has its tick once a second. ``rehearsal.py`` holds it against real processes.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from statistics import fmean
from typing import Final, NamedTuple

import simpy

#: Seconds between two ticks of a worker, and between two looks at who runs; of all workers
#: together one sweeps in each tick.
TICK: Final = 1.0
LOOK: Final = 0.25


class Message(NamedTuple):
    """One in the queue.

    Attributes:
        account: whose it is.
        handed_over: it waited, and its tokens are kept for it.
    """

    account: int
    handed_over: bool = False


class Verb(NamedTuple):
    """What something takes of the server.

    Attributes:
        seconds: of its processor, in all.
        trips: calls that it is made of.
    """

    seconds: float
    trips: int = 1


@dataclass(frozen=True)
class Costs:
    """The measured times.

    Attributes:
        verbs: by name: what a fleet sends.
        trip: seconds that a call takes a client beyond the server's time for it.
        spread: how the times of single calls differ: equally likely multiples of the mean.
    """

    verbs: dict[str, Verb]
    trip: float
    spread: tuple[float, ...] = (1.0,)

    def task(self, share_that_waits: float) -> float:
        """Return the server's seconds for a task, when this share of all tasks has to wait."""
        waits, runs = (
            sum(self.verbs[name].seconds for name in names)
            for names in (("deny", "park", "hand over", "take over"), ("acquire", "release"))
        )
        return self.verbs["message"].seconds + runs + share_that_waits * (waits - runs)

    def worker(self, busy: float, begun: float = 0.0) -> float:
        """Return the server's seconds each second for a worker.

        Args:
            busy: of its processes.
            begun: tasks that begin there each second. A look that finds one which no beat has
                named sends one more beat.
        """
        beats = (TICK / LOOK - 1) * (1 - math.exp(-begun * LOOK))
        tokens = busy * self.verbs["token"].seconds
        each = self.verbs["tick"].seconds + tokens + beats * (self.verbs["beat"].seconds + tokens)
        return each / TICK


@dataclass(frozen=True)
class Fleet:
    """Workers, and what they are given.

    Attributes:
        workers: how many.
        processes: of each.
        task_seconds: that a task takes on the average; the lengths are exponential.
        load: how many tasks arrive, as a share of what all processes can run.
        accounts: for each process of the fleet. Each task is of one of them, at random.
        limit: of tasks at once of an account.
    """

    workers: int
    processes: int = 8
    task_seconds: float = 10.0
    load: float = 0.8
    accounts: float = 4.0
    limit: int = 1

    @property
    def rate(self) -> float:
        """Tasks that arrive each second."""
        return self.load * self.workers * self.processes / self.task_seconds

    def demand(self, costs: Costs, waited: float | None = None) -> float:
        """Return how much of a server it needs: 1 is all of it, and more is too much.

        Args:
            costs: the measured times.
            waited: the share of tasks that find their account busy. None for what follows where
                an account may run one: it is busy for that share of the time (M/M/1).
        """
        share = self.load / self.accounts if waited is None else waited
        keeping = self.workers * costs.worker(self.load * self.processes, self.rate / self.workers)
        return self.rate * costs.task(share) + keeping + costs.verbs["sweep"].seconds / TICK


@dataclass
class Found:
    """What came of it.

    Attributes:
        utilisation: the share of the time in which the server was busy.
        tasks_per_second: that ended.
        call_seconds: how long each acquire that was granted took, in order of length.
        added_seconds: that a task which need not wait spent in its two calls, on the average.
        waited: the share of tasks that found their account busy.
        tick_seconds: the longest tick of a worker.
    """

    utilisation: float = 0.0
    tasks_per_second: float = 0.0
    call_seconds: list[float] = field(default_factory=list)
    added_seconds: float = 0.0
    waited: float = 0.0
    tick_seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """Return within how many seconds this share of the calls was answered."""
        return self.call_seconds[
            min(int(share * len(self.call_seconds)), len(self.call_seconds) - 1)
        ]


class ScriptServer:
    """Does one call after the other, in the order in which they arrive.

    By Lindley's recursion (1952): a call begins when it has arrived and the one before is done. So
    no queue has to be kept.

    Args:
        env: the simulation.
        trip: seconds of a call beyond the server's time: half before it, and half after.
    """

    def __init__(self, env: simpy.Environment, trip: float = 0.0) -> None:
        self._env = env
        self._trip = trip
        self._done_at = 0.0
        self._work = 0.0

    def call(self, seconds: float) -> simpy.Timeout:
        """Return what happens when a call that takes the server so long is answered."""
        arrives = self._env.now + self._trip / 2
        self._done_at = max(arrives, self._done_at) + seconds
        self._work += seconds
        return self._env.timeout(self._done_at + self._trip / 2 - self._env.now)

    def utilisation(self, since: float = 0.0) -> float:
        """Return the share of the time in which it was busy, since its first call could come."""
        ahead = max(0.0, self._done_at - self._env.now)
        return (self._work - ahead) / (self._env.now - since)


class Simulation:
    """One fleet with one server.

    Args:
        fleet, costs: what is simulated.
        seed: the same seed gives the same numbers.
    """

    def __init__(self, fleet: Fleet, costs: Costs, seed: int = 1) -> None:
        self._fleet, self._costs = fleet, costs
        self._random = Random(seed)  # noqa: S311 - nothing secret about it
        self._env = simpy.Environment()
        self._server = ScriptServer(self._env, costs.trip)
        self._queue: deque[Message] = deque()
        self._idle: deque[simpy.Event] = deque()
        self._is_free = False
        self._accounts = max(1, round(fleet.accounts * fleet.workers * fleet.processes))
        self._held: Counter[int] = Counter()
        self._waiting: Counter[int] = Counter()
        self._busy = [0] * fleet.workers
        # Workers with a run that no beat has named; the accounts that wait, as each of them knows.
        self._unnamed: set[int] = set()
        self._known: list[set[int]] = [set() for _ in range(fleet.workers)]
        self._forget()

    def run(self, seconds: float, warm_up: float | None = None) -> Found:
        """Simulate.

        Args:
            seconds: that count.
            warm_up: seconds before them, in which calls take no time, so that they are quick: as
                many run and wait afterwards as if the fleet had run for long. None for five of a
                task's.

        Returns:
            what came of it.
        """
        fleet, env = self._fleet, self._env
        env.process(self._arrivals())
        for worker in range(fleet.workers):
            for _ in range(fleet.processes):
                env.process(self._process(worker))
        self._is_free = True
        before = 5 * fleet.task_seconds if warm_up is None else warm_up
        if before:
            env.run(before)
        self._is_free = False
        self._forget()
        for worker in range(fleet.workers):
            env.process(self._ticks(worker))
        env.process(self._sweeps())
        env.run(before + seconds)
        return Found(
            utilisation=self._server.utilisation(before),
            tasks_per_second=self._ended / seconds,
            call_seconds=sorted(self._acquires),
            added_seconds=fmean(self._added or [0.0]),
            waited=self._denied / max(1, self._arrived),
            tick_seconds=self._longest_tick,
        )

    def _forget(self) -> None:
        self._arrived = self._denied = self._ended = 0
        self._acquires: list[float] = []
        self._added: list[float] = []
        self._longest_tick = 0.0

    def _call(self, name: str, more: float = 0.0) -> Iterator[simpy.Event]:
        """Make the calls of a verb, one after the other; ``more`` are seconds beyond its own."""
        if self._is_free:
            return
        verb = self._costs.verbs[name]
        each = (verb.seconds + more) / verb.trips
        for _ in range(verb.trips):
            yield self._server.call(each * self._random.choice(self._costs.spread))

    def _arrivals(self) -> Iterator[simpy.Event]:
        """Messages, of which one does not depend on the other; they go to the queue's end."""
        while True:
            yield self._env.timeout(self._random.expovariate(self._fleet.rate))
            self._queue.append(Message(self._random.randrange(self._accounts)))
            self._deliver()

    def _deliver(self) -> None:
        while self._idle and self._queue:
            self._idle.popleft().succeed(self._queue.popleft())

    def _take(self) -> simpy.Event:
        """Return what happens when a process gets the next message."""
        taken = self._env.event()
        self._idle.append(taken)
        self._deliver()
        return taken

    def _ticks(self, worker: int) -> Iterator[simpy.Event]:
        """Do a worker's housekeeping; the first is at any time within a second."""
        yield self._env.timeout(self._random.uniform(0, TICK))
        while True:
            began = self._env.now
            yield from self._beat(worker, "tick")
            self._longest_tick = max(self._longest_tick, self._env.now - began)
            while self._env.now < began + TICK - LOOK:
                yield self._env.timeout(LOOK)
                if worker in self._unnamed:
                    yield from self._beat(worker, "beat")
            yield self._env.timeout(max(0.0, began + TICK - self._env.now))

    def _beat(self, worker: int, name: str) -> Iterator[simpy.Event]:
        self._unnamed.discard(worker)
        yield from self._call(name, self._busy[worker] * self._costs.verbs["token"].seconds)

    def _sweeps(self) -> Iterator[simpy.Event]:
        while True:
            yield self._env.timeout(TICK)
            yield from self._call("sweep")

    def _process(self, worker: int) -> Iterator[simpy.Event]:
        """Take messages, ask, and run or let them wait."""
        while True:
            message: Message = yield self._take()
            yield from self._call("message")
            if message.handed_over:
                yield from self._call("take over")
                yield from self._body(worker, message.account)
            else:
                yield from self._ask(worker, message.account)

    def _ask(self, worker: int, account: int) -> Iterator[simpy.Event]:
        """Ask for a new message, and run or park it."""
        self._arrived += 1
        known, began = self._known[worker], self._env.now
        joins, is_full = account in known, self._held[account] >= self._fleet.limit
        # What others find from now on; the calls follow.
        if is_full:
            self._denied += 1
            self._waiting[account] += 1
        else:
            self._held[account] += 1
        if joins:
            yield from self._call("join")
            if is_full and self._waiting[account] > 1:
                return
            known.discard(account)
        if is_full:
            known.add(account)
            yield from self._call("deny")
            yield from self._call("park")
            return
        asked = self._env.now
        yield from self._call("acquire")
        if self._is_free:
            yield from self._body(worker, account)
        else:
            self._acquires.append(self._env.now - asked)
            yield from self._body(worker, account, self._env.now - began)

    def _body(self, worker: int, account: int, asked: float | None = None) -> Iterator[simpy.Event]:
        """Run a task that holds its tokens, and release them.

        Args:
            asked: seconds that it took to get them at once; None where that does not count.
        """
        self._busy[worker] += 1
        self._unnamed.add(worker)
        yield self._env.timeout(self._random.expovariate(1 / self._fleet.task_seconds))
        self._busy[worker] -= 1
        self._ended += 1
        began = self._env.now
        if self._waiting[account]:
            self._waiting[account] -= 1
            yield from self._call("hand over")
            # Put back in front: its tokens lie idle as long as it waits there.
            self._queue.appendleft(Message(account, handed_over=True))
            self._deliver()
        else:
            self._held[account] -= 1
            yield from self._call("release")
        if asked is not None:
            self._added.append(asked + self._env.now - began)
