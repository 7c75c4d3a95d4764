"""What became of each task of a soak, and why where that was not one run to its end.

The tasks' own journal says which runs there were, the events what was done to their processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from tests.support.starts import Rate, exceeded

#: How long after an event its consequences may begin, in seconds: connections are made anew,
#: and what a dead worker had comes again after its visibility timeout.
LATE = 12.0
#: As the project has it: what is not acknowledged in time is delivered again.
VISIBILITY_SECONDS = 5


#: What may be done. The broker's server has the limiter's tokens too, where that has no own.
SAID = {
    "child": "a child was killed",
    "worker": "a worker was killed",
    "exit": "a worker ended by itself",
    "broker": "the broker's Redis was killed",
    "broker full": "the broker's Redis was out of memory",
    "limiter": "the limiter's Redis was killed",
    "limiter full": "the limiter's Redis was out of memory",
}


@dataclass(frozen=True)
class Event:
    """Something that was done.

    Attributes:
        what: a key of ``SAID``.
        begin, end: when, by the clock of the journal.
        pids: the processes that ended by it.
    """

    what: str
    begin: float
    end: float
    pids: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return SAID[self.what]


@dataclass
class Run:
    """One run, as the task noted it; its end is None where it did not come to it.

    ``granted`` is when it got its tokens, in the limiter's microseconds: its fence.
    """

    pid: int
    parent: int
    begin: float
    granted: int
    end: float | None = None


@dataclass
class Task:
    """One task that was sent.

    Attributes:
        id: its id.
        acks_late: its message is acknowledged after its run.
        account: whose it is.
        sent: when.
        is_sure: the broker has confirmed it; else it may be there or not.
        runs: its runs.
        failure: the error with which a worker failed it; None where none did.
    """

    id: str
    acks_late: bool
    account: str
    sent: float
    is_sure: bool = True
    runs: list[Run] = field(default_factory=list)
    failure: str | None = None

    @property
    def ends(self) -> int:
        """How many runs came to their end."""
        return sum(run.end is not None for run in self.runs)


def take_in(tasks: dict[str, Task], lines: Iterable[list]) -> None:
    """Give each task its runs, as the journal has them."""
    running: dict[int, Run] = {}
    for what, task, _, pid, parent, at, fence in lines:
        if what == "begin":
            running[pid] = Run(pid, parent, at, fence)
            tasks[task].runs.append(running[pid])
        elif what == "end":
            running.pop(pid).end = at
        else:
            tasks[task].failure = what


def why_lost(task: Task, events: list[Event], said: list[str]) -> str | None:
    """Return why a task never came to its end; None where nothing explains it.

    Args:
        said: what workers logged of it, each line with the process id of its worker in front.
    """
    if not task.is_sure:
        return "the broker never confirmed that it had the message"
    killed = [run for run in task.runs if _end_of(run, events)]
    if not task.acks_late and killed:
        return "acknowledged early, and killed while its body ran"
    if not task.acks_late and not task.runs and task.failure == "WorkerLostError":
        return "acknowledged early, and its child killed before it asked"
    if any("may be lost" in line for line in said):
        return "logged as lost: its worker ended before its message was put back"
    if not task.acks_late and said and not task.runs:
        last = int(said[-1].split(maxsplit=1)[0])
        for event in events:
            if event.what in ("worker", "exit") and last in event.pids:
                return f"acknowledged early, and {event} before its body began"
    seen = max([task.sent, *(run.begin for run in task.runs)])
    for event in events:
        if event.what.startswith("broker") and event.begin - 1 < seen < event.end + 5:
            return f"taken out of its queue while {event}, which kombu does before it notes it"
    return None


def why_doubled(task: Task, events: list[Event], said: list[str]) -> str | None:
    """Return why more than one run of a task came to its end; None where nothing explains it.

    Args:
        said: as for ``why_lost``.
    """
    # By the time that each line begins with, behind the worker's process id.
    lines = sorted(line.partition(" ")[2] for line in said)
    for number, (line, following) in enumerate(pairwise(lines)):
        if line.endswith(" received") and following.endswith(" received"):
            if number == 0:
                return "kombu delivered its message twice, before anything was done with it"
            if _at(following) - _at(line) >= timedelta(seconds=VISIBILITY_SECONDS):
                return "no slot was free for so long that kombu delivered its message again"
    first, *_ = ended = sorted(run.end for run in task.runs if run.end is not None)
    begun = min(run.begin for run in task.runs)
    if any("keeps its slot" in line for line in said):
        begun = task.sent  # it had no ack long before any run of it began
    parkers = {int(line.split(maxsplit=1)[0]) for line in said if " parked and starts" in line}
    for event in events:
        if event.what in ("worker", "exit") and event.pids & parkers and event.end > task.sent:
            return f"{event} between the parking of its message and the acknowledgement"
        if event.what in ("broker", "broker full", "worker", "exit"):
            if begun - 1 < event.end and event.begin < ended[-1] + 1:
                return f"{event} before it was acknowledged, so that it was delivered again"
        elif event.what == "child" and task.acks_late and first - 0.1 < event.begin < first + 1:
            pids = {run.pid for run in task.runs if run.end is not None}
            if pids & event.pids:
                return f"{event} between its end and its acknowledgement"
    return None


def _at(line: str) -> datetime:
    """Return when a line was logged: it begins with "[2026-01-31 23:59:59,999:"."""
    return datetime.strptime(line[1:24], "%Y-%m-%d %H:%M:%S,%f")


def killed_at(run: Run, events: list[Event]) -> float:
    """Return when a run ended that did not come to its end; infinity where nobody knows."""
    return _end_of(run, events) or float("inf")


def overlaps(tasks: Iterable[Task], events: list[Event]) -> list[str]:
    """Return each two runs of one account that were there at once."""
    by_account: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for task in tasks:
        for run in task.runs:
            end = run.end or max(run.begin, killed_at(run, events))
            by_account[task.account].append((run.begin, end, task.id))
    found = []
    for account, runs in by_account.items():
        runs.sort()
        for (_, end, one), (begin, _, other) in pairwise(runs):
            if end > begin:
                found.append(f"{account}: {one} until {end:.3f}, {other} from {begin:.3f}")
    return found


def too_many(tasks: Iterable[Task], rates: dict[str, tuple[Rate, ...]]) -> list[str]:
    """Return each window, wherever it begins, in which more runs began than a rate allows.

    Args:
        rates: those of ``global``, and those of each account as ``account:*``.
    """
    granted: dict[str, list[int]] = defaultdict(list)
    for task in tasks:
        for run in task.runs:
            granted["global"].append(run.granted)
            granted[f"account:{task.account}"].append(run.granted)
    return [
        f"{limit}: over {most} in {per} s from {one} to {later}"
        for limit, moments in granted.items()
        for most, per in rates["global" if limit == "global" else "account:*"]
        for one, later in exceeded(moments, (most, per))
    ]


def _end_of(run: Run, events: list[Event]) -> float | None:
    if run.end is not None:
        return None
    deaths = [event.begin for event in events if {run.pid, run.parent} & event.pids]
    return min((at for at in deaths if at > run.begin - LATE), default=None)
