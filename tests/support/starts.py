"""Starts of runs, as the tasks themselves note them, and what that says of rates.

Each start has two clocks: the server's at its grant, which the fence is, and the body's own.
``recording.py`` has from when to when runs ran.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery_concurrency import current_lease

#: The variable that names the file.
FILE = "STARTS"

#: A rate: how many starts, in how many seconds.
Rate = tuple[int, float]


@dataclass(frozen=True)
class Start:
    """One run that began.

    Attributes:
        task_id: its task.
        headers: of its message.
        granted: when, in the server's microseconds.
        begun: when its body began, in this machine's.
    """

    task_id: str
    headers: dict[str, Any]
    granted: int
    begun: int


def note_start(task: Any) -> Start:
    """Note, in a running task, that its body begins."""
    begun = time.time_ns() // 1000
    lease = current_lease()
    request = task.request
    start = [request.id, request.headers or {}, lease.fence if lease else 0, begun]
    # One write of few bytes at the end of a file is never torn by others.
    file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{json.dumps(start)}\n".encode())
    os.close(file)
    return Start(*start)


def read_starts(path: Path) -> list[Start]:
    """Return all starts noted in a file, in the order of their grants."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted((Start(*json.loads(line)) for line in lines), key=lambda one: one.granted)


def exceeded(moments: Iterable[int], rate: Rate, tolerance: int = 0) -> list[tuple[int, int]]:
    """Return each window, wherever it begins, in which more began than the rate allows.

    A window has more than ``max`` only if one has that begins with a start: so for each start,
    the one that comes ``max`` later must not be in the same window.

    Args:
        moments: of starts, in microseconds.
        tolerance: microseconds by which two starts may have come nearer to each other.
    """
    most, per = rate
    ordered = sorted(moments)
    pairs = zip(ordered, ordered[most:], strict=False)
    return [(one, later) for one, later in pairs if later - one < per * 1_000_000 - tolerance]


def soonest(names: list[str], own: tuple[Rate, ...], shared: tuple[Rate, ...]) -> float:
    """Return how many seconds after the first start the last comes at the soonest.

    Args:
        names: of each run that waits, in their order, the limit that is its own.
        own: the rates of each of these limits.
        shared: those of a limit that all of the runs need.
    """
    begun: dict[str, list[float]] = {name: [] for name in names}
    everywhere: list[float] = []
    left, now = list(names), 0.0
    while True:
        for name in list(left):
            if _opens(begun[name], own) <= now and _opens(everywhere, shared) <= now:
                begun[name].append(now)
                everywhere.append(now)
                left.remove(name)
        if not left:
            return now
        now = max(_opens(everywhere, shared), min(_opens(begun[name], own) for name in left))


def lateness(
    starts: Iterable[Start], own: tuple[Rate, ...], shared: tuple[Rate, ...]
) -> list[float]:
    """Return how many seconds after its limits had opened each began that had to wait for that.

    Args:
        starts: in the order of their grants.
        own: the rates of each account.
        shared: those of a limit that all of the runs need.
    """
    begun: dict[str, list[float]] = {}
    everywhere: list[float] = []
    late = []
    for one in starts:
        at, mine = one.granted / 1e6, begun.setdefault(one.headers["account"], [])
        opened = max(_opens(mine, own), _opens(everywhere, shared))
        if opened:
            late.append(at - opened)
        mine.append(at)
        everywhere.append(at)
    return late


def _opens(past: list[float], rates: tuple[Rate, ...]) -> float:
    return max((past[-most] + per for most, per in rates if len(past) >= most), default=0.0)
