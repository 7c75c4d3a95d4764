"""The report: what was sent and ran, how much of it at once, and whether all was right.

It is made of what was recorded and of the configurations seen, never of what
the limiter counted.

What was recorded is in ``records.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from celery_concurrency.demo.records import Run, Sent
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.limits import GLOBAL, limits_of

T = TypeVar("T", Sent, Run)

#: How many of the same kind are named where something went wrong.
NAMED: Final = 3


class LimitsSeen:
    """The configurations that were in force, as somebody saw who looked often.

    Attributes:
        configs: each that was seen, in their order.
        missed: some were in force between two looks and were not seen.
    """

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.missed = False
        self._version: int | None = None

    def look(self, stored: Stored) -> None:
        """Take note of what is in force now."""
        if stored.version == self._version:
            return
        if self._version is not None and stored.version != self._version + 1:
            self.missed = True
        self._version = stored.version
        self.configs.append(stored.config)

    def highest(self, limit: str) -> int:
        """Return the highest maximum that was in force; 0 is unlimited.

        A limit that was lowered never touched what ran, so no run is to be
        judged by a lower one.
        """
        allowed = [config.max_of(limit) if config.enabled else 0 for config in self.configs]
        return 0 if 0 in allowed else max(allowed)

    def changed(self, limit: str) -> bool:
        """Return whether it had more than one maximum."""
        return len({config.max_of(limit) if config.enabled else 0 for config in self.configs}) > 1


@dataclass(frozen=True, slots=True)
class Row:
    """What was counted in one limit.

    Attributes:
        limit: its name.
        sent: tasks sent.
        run: of these, how many ran to their end.
        overlap: how many ran at once at most.
        max: the highest maximum that was in force; 0 is unlimited.
        changed: it had others too.
    """

    limit: str
    sent: int
    run: int
    overlap: int
    max: int
    changed: bool

    @property
    def exceeded(self) -> bool:
        """More ran at once than it allowed."""
        return self.overlap > self.max > 0


@dataclass(frozen=True, slots=True)
class Report:
    """What was counted, and what was wrong with it.

    Attributes:
        rows: one a limit, all accounts among them.
        problems: what went wrong; empty if all sent tasks ran, once each, and no
            limit was exceeded.
    """

    rows: list[Row]
    problems: list[str]

    @property
    def status(self) -> int:
        """The exit status: 0 or 1."""
        return 1 if self.problems else 0

    def lines(self) -> Iterator[str]:
        """Return the report as text."""
        shown = [row for row in self.rows if not row.limit.startswith("account:")]
        accounts = [row for row in self.rows if row.limit.startswith("account:")]
        cells = [("limit", "sent", "run", "highest overlap", "allowed"), *map(_cells, shown)]
        if accounts:
            worst = max(accounts, key=lambda row: (row.exceeded, row.overlap, row.sent))
            name, *numbers = _cells(worst)
            cells.append((f"{name} (the busiest of {len(accounts)})", *numbers))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for name, *numbers in cells:
            padded = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
            yield "  ".join((name.ljust(widths[0]), *padded))
        yield ""
        if any(row.changed for row in (*shown, *accounts)):
            yield "* changed while tasks ran: this is the highest that was in force"
        yield from (f"FAILED: {problem}" for problem in self.problems)
        if not self.problems:
            yield f"OK: all {self.rows[0].sent} tasks ran, each once, and no limit was exceeded"


def make_report(
    sent: Collection[Sent], runs: Collection[Run], seen: LimitsSeen, problems: Sequence[str] = ()
) -> Report:
    """Count, and judge.

    Args:
        sent: the tasks that were sent.
        runs: the runs that were recorded.
        seen: the configurations that were in force meanwhile.
        problems: what went wrong otherwise.
    """
    # Whether one that never ended still held anything is not known: it is told instead.
    ended = [run for run in runs if run.end is not None]
    ran = {run.task_id for run in ended}
    sent_by, runs_by = _by_limit(sent), _by_limit(ended)
    rows = [
        Row(
            limit=limit,
            sent=len(sent_by.get(limit, ())),
            run=len({task.task_id for task in sent_by.get(limit, ())} & ran),
            overlap=highest_overlap(runs_by.get(limit, ())),
            max=seen.highest(limit),
            changed=seen.changed(limit),
        )
        for limit in sorted({*sent_by, *runs_by}, key=_order)
    ]
    return Report(
        rows=rows,
        problems=[
            *problems,
            *_task_problems(sent, runs, seen),
            *(
                ["the configuration changed faster than it was looked at: can't judge by it"]
                if seen.missed
                else _limit_problems(rows)
            ),
        ],
    )


def highest_overlap(runs: Iterable[Run]) -> int:
    """Return how many of these ran at once at most; those that ended."""
    steps = sorted(
        (moment, step)
        for run in runs
        if run.end is not None
        # Of the same moment, ends come before starts: (t, -1) < (t, 1).
        for moment, step in ((run.start, 1), (run.end, -1))
    )
    running = highest = 0
    for _, step in steps:
        running += step
        highest = max(highest, running)
    return highest


def _by_limit(records: Iterable[T]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for record in records:
        for limit in limits_of(record.tags):
            groups.setdefault(limit, []).append(record)
    return groups


def _order(limit: str) -> tuple[bool, str]:
    return limit != GLOBAL, limit


def _cells(row: Row) -> tuple[str, ...]:
    allowed = f"{row.max or 'unlimited'}{'*' if row.changed else ''}"
    return row.limit, str(row.sent), str(row.run), str(row.overlap), allowed


def _task_problems(
    sent: Collection[Sent], runs: Collection[Run], seen: LimitsSeen
) -> Iterator[str]:
    if not sent:
        yield "no task was sent"
    began = Counter(run.task_id for run in runs)
    ids = [task.task_id for task in sent]
    open_ids = {run.task_id for run in runs if run.end is None}
    paused = seen.configs[-1].paused
    for what, tasks in (
        ("did not run", [task for task in ids if not began[task]]),
        ("began and did not end", [task for task in ids if task in open_ids]),
        ("ran more than once", [task for task in ids if began[task] > 1]),
    ):
        if tasks:
            yield f"{len(tasks)} of {len(ids)} tasks {what}: {_named(tasks)}"
    if paused and not set(ids) <= set(began):
        yield f"paused at the end: {', '.join(paused)}"


def _limit_problems(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if row.exceeded:
            yield f"{row.limit} had {row.overlap} at once and allowed {row.max}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
