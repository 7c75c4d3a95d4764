"""A load of real workers whose children, and which themselves, are killed at random.

``make soak SECONDS=60``, or ``python -m tests.support.soak 60``. The exit status is 0 only if every
task ran, no two of one account overlapped as the tasks themselves noted it, and no
token is left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from celery_concurrency.testing.server import Server
from tests.support.recording import RunRecord, by, highest_overlap
from tests.support.sites import Site, site
from tests.support.workers import Worker

ACCOUNTS = [f"a{number}" for number in range(6)]
WORKERS = 2
CHILDREN = 3
#: Tasks sent a second, for how long each runs at most, and how often something is killed.
RATE = 12
LONGEST = 0.3
PAUSE = (0.3, 1.2)
#: Of so many kills one is that of a whole worker.
WORKER_SHARE = 8
#: How often it is tried to find a moment in which no message is on its way.
TRIES = 20
#: How long the last tasks may take: what a killed worker had comes again after its
#: visibility timeout.
DRAIN_SECONDS = 60


@dataclass
class Figures:
    """What came of a soak.

    Attributes:
        sent, ran: tasks, and those of them that came to their end.
        runs: begun, the killed ones among them.
        killed_children, killed_workers: how many.
        overlaps: account to how many ran at once at most.
        tokens: left at the end.
        waiting: tasks that still wait at the end.
    """

    sent: int = 0
    ran: int = 0
    runs: int = 0
    killed_children: int = 0
    killed_workers: int = 0
    overlaps: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    waiting: int = 0

    @property
    def is_well(self) -> bool:
        """Whether all is as promised."""
        highest = max(self.overlaps.values(), default=0)
        return self.sent == self.ran > 0 and highest == 1 and not self.tokens + self.waiting

    def __str__(self) -> str:
        overlaps = ", ".join(f"{name} {count}" for name, count in sorted(self.overlaps.items()))
        return (
            f"sent {self.sent}, ran {self.ran}, in {self.runs} runs\n"
            f"killed: {self.killed_children} children, {self.killed_workers} workers\n"
            f"highest overlap: {overlaps}\n"
            f"left: {self.tokens} tokens, {self.waiting} waiting tasks"
        )


class Soak:
    """A load, and one who kills.

    Args:
        site: with the project ``soak``.
        journal: the file that its tasks write.
        seed: of all chance.
    """

    def __init__(self, site: Site, journal: Path, seed: int) -> None:
        self._site = site
        self._journal = journal
        self._random = random.Random(seed)
        self._sent: set[str] = set()
        #: When a process was killed, by its id: a child, or a worker with all its children.
        self._deaths: dict[int, float] = {}
        self._living: list[Worker] = []
        self.figures = Figures()

    def run(self, seconds: float) -> Figures:
        """Send and kill for so many seconds, then wait for the rest."""
        for _ in range(WORKERS):
            self._living.append(self._site.start(concurrency=CHILDREN))
        ends = time.monotonic() + seconds
        next_kill = time.monotonic() + 1
        while time.monotonic() < ends:
            self._send()
            if time.monotonic() > next_kill:
                self._kill()
                next_kill = time.monotonic() + self._random.uniform(*PAUSE)
            time.sleep(1 / RATE)
        self._wait_for_the_rest()
        return self._count()

    def _send(self) -> None:
        account = self._random.choice(ACCOUNTS)
        seconds = self._random.uniform(0.01, LONGEST)
        sent = self._site.tasks.work.apply_async((seconds,), headers={"account": account})
        self._sent.add(sent.id)

    def _kill(self) -> None:
        if self._random.randrange(WORKER_SHARE) == 0:
            worker = self._random.choice(self._living)
            if self._kill_worker(worker):
                self._living.remove(worker)
                self._living.append(self._site.start(concurrency=CHILDREN))
            return
        # One that was killed before is there until its parent has seen it.
        children = set(self._random.choice(self._living).children()) - self._deaths.keys()
        if children:
            child = self._random.choice(sorted(children))
            self._deaths[child] = _now()
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                self.figures.killed_children += 1

    def _kill_worker(self, worker: Worker) -> bool:
        """Kill a worker with its children, but not with a message that kombu would lose.

        Kombu's Redis transport takes a message out of its queue before it notes that it
        has it: one who is killed in between takes it along, whatever its ack setting.
        """
        redis = self._site.redis
        for _ in range(TRIES):
            redis.client_pause(2000, all=False)
            try:
                if not self._on_the_way():
                    # A child whose parent is gone first has another one for a moment.
                    dying = (worker.pid, *worker.children())
                    self._deaths = {**dict.fromkeys(dying, _now()), **self._deaths}
                    worker.kill()
                    self.figures.killed_workers += 1
                    # The server has seen by the second answer that the killed one is gone.
                    redis.ping()
                    redis.ping()
                    return True
            finally:
                redis.client_unpause()
            time.sleep(0.05)
        return False

    def _on_the_way(self) -> set[str]:
        """Return the tasks whose message is neither queued nor noted nor parked."""
        redis = self._site.redis
        places = [*redis.lrange("celery", 0, -1), *redis.hvals("unacked"), *self._site.waiting()]
        text = "\n".join(places)
        return {task for task in self._sent - self._ended() if task not in text}

    def _wait_for_the_rest(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            if self._ended() >= self._sent and not self._site.semaphores():
                return
            self._restore()
            time.sleep(0.5)

    def _restore(self) -> None:
        """Put back what killed workers had, as kombu does: by itself every hundred seconds."""
        with self._site.tasks.app.connection_for_write() as connection:
            connection.default_channel.qos.restore_visible(num=100, interval=1)

    def _lines(self) -> list[list]:
        text = self._journal.read_text() if self._journal.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def _ended(self) -> set[str]:
        return {line[1] for line in self._lines() if line[0] == "end"}

    def runs(self) -> Iterator[RunRecord]:
        """Yield all runs; one that was killed ended when its process was."""
        begun: dict[int, list] = {}
        for what, task, account, pid, parent, at in self._lines():
            if what == "end":
                _, *begin = begun.pop(pid)
                yield RunRecord(task, {"account": account}, 0, begin[-1], at)
                continue
            begun[pid] = [what, task, account, parent, at]
        for pid, (_, task, account, parent, at) in begun.items():
            # One of which nobody knows the end has none.
            end = self._deaths.get(pid) or self._deaths.get(parent) or float("inf")
            yield RunRecord(task, {"account": account}, 0, at, max(at, end))

    def _count(self) -> Figures:
        figures, runs = self.figures, list(self.runs())
        figures.sent, figures.ran = len(self._sent), len(self._ended() & self._sent)
        figures.runs = len(runs)
        accounts = by(runs, lambda run: run.headers["account"])
        figures.overlaps = {name: highest_overlap(runs) for name, runs in accounts.items()}
        figures.tokens = sum(len(holders) for holders in self._site.semaphores().values())
        figures.waiting = len(self._site.waiting())
        return figures

    def overlapping(self) -> list[str]:
        """Return the runs of one account that overlapped, in pairs, for who looks for the cause."""
        pairs = []
        for runs in by(self.runs(), lambda run: run.headers["account"]).values():
            ordered = sorted(runs, key=lambda run: run.start)
            pairs += [
                f"{one}\n  overlaps {next_}"
                for one, next_ in pairwise(ordered)
                if one.end > next_.start
            ]
        return pairs

    def missing(self) -> dict[str, list[str]]:
        """Return what is known of each task that did not come to its end."""
        missing = self._sent - self._ended()
        redis = self._site.redis
        broker = [*redis.lrange("celery", 0, -1), *redis.hvals("unacked")]
        said: dict[str, list[str]] = defaultdict(list)
        for task in missing:
            there = any(task in message for message in broker)
            said[task].append(f"{task} is {'in' if there else 'not in'} the broker")
        for worker in self._site.workers:
            for line in worker.output().splitlines():
                for task in missing:
                    if task in line:
                        said[task].append(f"{worker.process.log.name}: {line}")
        return said


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@contextmanager
def soaking(server: Server, directory: Path, seed: int, db: int = 0) -> Iterator[Soak]:
    """Set a soak up; nothing of it is left at the end."""
    journal = directory / "journal"
    with site(server, directory, "soak", db=db, JOURNAL=str(journal)) as one:
        yield Soak(one, journal, seed)


def main(seconds: float, seed: int) -> int:
    """Soak for so many seconds, print what came of it, and return the exit status."""
    print(f"soaking for {seconds:.0f} s, seed {seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        Server() as server,
        soaking(server, Path(directory), seed) as soak,
    ):
        figures = soak.run(seconds)
        print(figures)
        for pair in soak.overlapping():
            print(pair)
        for lines in soak.missing().values():
            print(*lines, sep="\n  ")
    print("all is well" if figures.is_well else "NOT WELL")
    return 0 if figures.is_well else 1


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    # 0 stands for none: the Makefile's SECONDS has that where nobody says how long.
    sys.exit(main(float(given.get(0, 0)) or 60, int(given.get(1, random.randrange(10**6)))))
