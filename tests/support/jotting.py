"""Records of runs that cost a task next to nothing: a line in a file that all append to."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.recording import RunRecord, parse_records, timed

#: The variable that names the file.
FILE = "JOTS"


def jotted(task: Any) -> AbstractContextManager[None]:
    """Record from when to when the block runs, in a running task."""
    return timed(task, _append)


def _append(record: str) -> None:
    # One write of few bytes at the end of a file is never torn by others.
    file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{record}\n".encode())
    os.close(file)


def read_jots(path: Path) -> list[RunRecord]:
    """Return all runs recorded in a file, in the order of their starts."""
    return parse_records(path.read_text().splitlines() if path.exists() else [])


def makespan(runs: list[RunRecord]) -> float:
    """Return the seconds from the first start to the last end."""
    return max(run.end for run in runs) - runs[0].start


def gaps(runs: list[RunRecord]) -> list[float]:
    """Return the seconds between each end and the next start, of runs one after another."""
    return [later.start - earlier.end for earlier, later in pairwise(runs)]
