"""The load of a soak, and who kills; ``causes.py`` says what became of each task."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.sites import Site, site
from tests.support.soak.causes import (
    Event,
    Task,
    overlaps,
    take_in,
    too_many,
    why_doubled,
    why_lost,
)
from tests.support.waiting import waiters
from tests.support.workers import Worker, has_ended, wait_for

#: What a server needs for the promises: that it loses no acknowledged write.
KEEPS = ("--appendonly", "yes", "--appendfsync", "always")
ACCOUNTS = [f"a{number}" for number in range(6)]
WORKERS = 2
#: Each worker grows and shrinks, and replaces its children.
ARGUMENTS = ("--autoscale", "4,1", "--max-tasks-per-child", "25")
#: Tasks sent a second, for how long each runs at most, and how often something is done.
RATE = 12
LONGEST = 0.3
#: Of so many sendings one is of several tasks of one account, so that most of them wait.
BURSTS = 8
BURST = 6
#: A little more may begin than are sent, so that who waits for a moment does not for long.
RATES = {"account:*": ((3, 1), (12, 5)), "global": ((16, 1),)}
PAUSE = (0.3, 1.2)
#: Of so many deeds each kind is one, on average.
SHARES = {"worker": 10, "server": 12, "memory": 12}
#: For how long memory is full, in seconds.
FULL = (0.5, 3.0)
#: How often it is tried to find a moment in which no message is on its way, and how long that
#: may last, in milliseconds.
TRIES = 20
PAUSE_MS = 10_000
#: How long the last tasks may take: what a killed worker had comes again after its
#: visibility timeout.
DRAIN_SECONDS = 60


@dataclass
class Figures:
    """What came of a soak.

    Attributes:
        sent, ran: tasks, and those of them that came to their end.
        runs: begun, the killed ones among them.
        at_the_door: how often a worker's main process parked a message itself.
        done: what was done, and how often.
        lost, doubled: tasks that never ended, or more than once, each with its cause.
        unexplained: those of them of which no cause is known.
        overlaps: runs of one account that were there at once.
        windows: in which more began than a rate allows.
        tokens: left at the end.
        waiting: tasks that still wait at the end.
    """

    sent: int = 0
    ran: int = 0
    runs: int = 0
    at_the_door: int = 0
    done: Counter[str] = field(default_factory=Counter)
    lost: dict[str, str] = field(default_factory=dict)
    doubled: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)
    tokens: int = 0
    waiting: int = 0

    @property
    def is_well(self) -> bool:
        """Whether all is as promised."""
        return (
            self.ran > 0
            and self.at_the_door > 0
            and not (
                self.unexplained or self.overlaps or self.windows or self.tokens or self.waiting
            )
        )

    def __str__(self) -> str:
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))
        lines = [
            f"sent {self.sent}, ran {self.ran}, in {self.runs} runs, "
            f"{self.at_the_door} messages parked as they arrived",
            f"done: {done}",
            f"left: {self.tokens} tokens, {self.waiting} waiting tasks",
            *(f"lost {task}: {cause}" for task, cause in self.lost.items()),
            *(f"doubled {task}: {cause}" for task, cause in self.doubled.items()),
            *(f"UNEXPLAINED {line}" for line in self.unexplained),
            *(f"OVERLAP {line}" for line in self.overlaps),
            *(f"WINDOW {line}" for line in self.windows),
        ]
        return "\n".join(lines)


class Soak:
    """A load, and one who kills.

    Args:
        site: with the project ``soak``.
        server: the limiter's, which is killed and runs full; the broker's too, if that is one.
        redis: a client of that.
        journal: the file that its tasks write.
        seed: of all chance.
    """

    def __init__(self, site: Site, server: Server, redis: Redis, journal: Path, seed: int) -> None:
        self._site = site
        self._server = server
        self._redis = redis
        self._of_server = "limiter" if server.url() != site.url else "broker"
        self._journal = journal
        self._random = random.Random(seed)
        self._tasks: dict[str, Task] = {}
        self._events: list[Event] = []
        self._living: list[Worker] = []
        self.figures = Figures()

    def run(self, seconds: float) -> Figures:
        """Send and kill for so many seconds, then wait for the rest."""
        self._living = [self._start() for _ in range(WORKERS)]
        ends = time.monotonic() + seconds
        next_deed = time.monotonic() + 1
        while time.monotonic() < ends:
            sent = self._send()
            self._replace_the_dead()
            if time.monotonic() > next_deed:
                self._do_something()
                next_deed = time.monotonic() + self._random.uniform(*PAUSE)
            time.sleep(sent / RATE)
        self._wait_for_the_rest()
        return self._count()

    def _start(self) -> Worker:
        # With a server of its own, every other worker lets its tasks wait by countdown.
        ways = ("handoff", "auto") if self._of_server == "limiter" else ("auto",)
        way = ways[len(self._site.workers) % len(ways)]
        return self._site.start({"WAITING": way}, concurrency=1, arguments=ARGUMENTS)

    def _send(self) -> int:
        """Send one task or several; return how many."""
        account = self._random.choice(ACCOUNTS)
        count = 1 if self._random.randrange(BURSTS) else BURST
        for _ in range(count):
            self._send_one(account)
        return count

    def _send_one(self, account: str) -> None:
        name = self._random.choice(["work", "early"])
        task = Task(str(uuid.uuid4()), name == "work", account, _now(), is_sure=False)
        self._tasks[task.id] = task
        with suppress(OperationalError, RedisError):
            getattr(self._site.tasks, name).apply_async(
                (self._random.uniform(0.01, LONGEST),),
                task_id=task.id,
                headers={"account": task.account},
            )
            task.is_sure = True

    def _replace_the_dead(self) -> None:
        """Start another worker for each that has ended by itself, as kombu's do without memory."""
        for worker in [one for one in self._living if one.process.poll() is not None]:
            self._note("exit", _now(), worker.pid)
            self._living.remove(worker)
            self._living.append(self._start())

    # -- what is done to them

    def _do_something(self) -> None:
        deeds = {"worker": self._kill_worker, "server": self._kill_server, "memory": self._fill}
        for what, deed in deeds.items():
            if self._random.randrange(SHARES[what]) == 0:
                deed()
                return
        self._kill_child()

    def _note(self, what: str, begin: float, *pids: int) -> None:
        self._events.append(Event(what, begin, _now(), frozenset(pids)))
        self.figures.done[what] += 1

    def _kill_child(self) -> None:
        # One that was killed before is there until its parent has seen it.
        dead = {pid for event in self._events for pid in event.pids}
        children = sorted(set(self._random.choice(self._living).children()) - dead)
        if children:
            child = self._random.choice(children)
            self._note("child", _now(), child)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _kill_worker(self) -> None:
        """Kill a worker with its children, and start another one."""
        worker = self._random.choice(self._living)
        with self._nothing_on_the_way() as is_still:
            if is_still:
                # A child whose parent is gone first has another one for a moment.
                children = worker.children()
                self._note("worker", _now(), worker.pid, *children)
                worker.kill()
                # While one of them is there, so is the connection on which it waits for messages.
                wait_for(lambda: all(has_ended(pid) for pid in children))
                # The server has seen by the second answer that the killed one is gone.
                self._site.redis.ping()
                self._site.redis.ping()
        if is_still:
            self._living.remove(worker)
            self._living.append(self._start())

    def _kill_server(self) -> None:
        """Kill the server, and start it again with its data."""
        with self._stillness() as is_still:
            if is_still:
                begin = _now()
                self._server.kill()
                self._server.start()
                self._note(self._of_server, begin)

    def _fill(self) -> None:
        """Let the server be out of memory for a while."""
        begin = _now()
        self._redis.config_set("maxmemory", 1)
        time.sleep(self._random.uniform(*FULL))
        self._redis.config_set("maxmemory", 0)
        self._note(f"{self._of_server} full", begin)

    def _stillness(self) -> AbstractContextManager[bool]:
        return nullcontext(True) if self._of_server == "limiter" else self._nothing_on_the_way()

    @contextmanager
    def _nothing_on_the_way(self) -> Iterator[bool]:
        """Stop the broker at a moment in which no message would be lost by kombu, if there is one.

        Kombu's Redis transport takes a message out of its queue before it notes that it
        has it: one who is killed in between takes it along, whatever its ack setting.
        """
        redis = self._site.redis
        for _ in range(TRIES):
            redis.client_pause(PAUSE_MS, all=False)
            if not self._on_the_way():
                break
            redis.client_unpause()
            time.sleep(0.05)
        else:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(RedisError):
                redis.client_unpause()

    def _on_the_way(self) -> set[str]:
        """Return the tasks whose message is neither queued nor noted nor parked, and no run's."""
        redis = self._site.redis
        waiting = {name.partition(" ")[0] for name in waiters(self._redis)}
        text = "\n".join([*redis.lrange("celery", 0, -1), *redis.hvals("unacked")])
        begun = {line[1] for line in self._lines() if line[0] == "begin"}
        return {
            task
            for task in self._tasks
            if task not in begun and task not in waiting and task not in text
        }

    # -- what came of it

    def _wait_for_the_rest(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            with suppress(OperationalError, RedisError):
                self._restore()
                if not (self._in_broker() or waiters(self._redis) or self._tokens()):
                    return
            time.sleep(0.5)

    def _tokens(self) -> int:
        return self._redis.zcard("concurrency:leases")

    def _in_broker(self) -> int:
        return self._site.redis.llen("celery") + self._site.redis.hlen("unacked")

    def _restore(self) -> None:
        """Put back what killed workers had, as kombu does: by itself every hundred seconds."""
        with self._site.tasks.app.connection_for_write() as connection:
            connection.default_channel.qos.restore_visible(num=100, interval=1)

    def _lines(self) -> list[list]:
        text = self._journal.read_text() if self._journal.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def _count(self) -> Figures:
        figures, events = self.figures, self._events
        take_in(self._tasks, self._lines())
        tasks = list(self._tasks.values())
        said = self._said([task.id for task in tasks if task.ends != 1])
        figures.sent = sum(task.is_sure for task in tasks)
        figures.ran = sum(bool(task.ends) for task in tasks)
        figures.runs = sum(len(task.runs) for task in tasks)
        figures.at_the_door = self._site.output().count("and is parked as it arrives")
        figures.overlaps = overlaps(tasks, events)
        figures.windows = too_many(tasks, RATES)
        for task in tasks:
            if task.ends == 1 or (not task.ends and not task.is_sure):
                continue
            what = figures.doubled if task.ends else figures.lost
            lines = said[task.id]
            cause = why_doubled(task, events, lines) if task.ends else why_lost(task, events, lines)
            what[task.id] = cause or "unexplained"
            if cause is None:
                figures.unexplained.append("\n  ".join([repr(task), *lines]))
        figures.tokens, figures.waiting = self._tokens(), len(waiters(self._redis))
        return figures

    def _said(self, tasks: list[str]) -> dict[str, list[str]]:
        """Return what the workers logged of these, each line with the worker's process id."""
        said: dict[str, list[str]] = {task: [] for task in tasks}
        for worker in self._site.workers:
            for line in worker.output().splitlines():
                for task in tasks:
                    if task in line:
                        said[task].append(f"{worker.pid} {line}")
        return said


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@contextmanager
def soaking(directory: Path, seed: int, *, apart: bool = False) -> Iterator[Soak]:
    """Set a soak up; nothing of it is left at the end.

    Args:
        directory: for the journal and the workers' logs.
        seed: of all chance.
        apart: the limiter has a server of its own, beside the broker's.
    """
    journal = directory / "journal"
    with Server(*KEEPS) as broker, Server(*KEEPS) as own:
        server = own if apart else broker
        env = {"JOURNAL": str(journal), "LIMITER_URL": server.url()}
        with site(broker, directory, "soak", **env) as one, _looking(server) as redis:
            _configure(server)
            yield Soak(one, server, redis, journal, seed)


def _configure(server: Server) -> None:
    """Let limits have their rates."""
    rates = {
        limit: [{"max": most, "per": per} for most, per in some] for limit, some in RATES.items()
    }
    with connect(server.url()) as client:
        Limiter(client).config.update({"rates": rates})


def _looking(server: Server) -> Redis:
    return Redis.from_url(server.url(), decode_responses=True)
