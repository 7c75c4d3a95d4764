"""Records of runs that cost a task next to nothing: a line in a file that all append to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.recording import RunRecord

#: The variable that names the file.
FILE = "JOTS"


@contextmanager
def jotted(task: Any) -> Iterator[None]:
    """Record from when to when the block ran, in a running task."""
    start = time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        yield
    finally:
        end = time.clock_gettime(time.CLOCK_MONOTONIC)
        request = task.request
        record = [request.id, request.headers or {}, request.retries, start, end]
        # One write of few bytes at the end of a file is never torn by others.
        file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, (json.dumps(record) + "\n").encode())
        os.close(file)


def read_jots(path: Path) -> list[RunRecord]:
    """Return all runs recorded in a file, in the order of their starts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted((RunRecord(*json.loads(line)) for line in lines), key=lambda run: run.start)


def makespan(runs: list[RunRecord]) -> float:
    """Return the seconds from the first start to the last end."""
    return max(run.end for run in runs) - runs[0].start


def gaps(runs: list[RunRecord]) -> list[float]:
    """Return the seconds between each end and the next start, of runs one after another."""
    return [later.start - earlier.end for earlier, later in pairwise(runs)]
