"""The report: whether all tasks ran, once each, and how many at once in each limit.

It judges by what ``records.py`` read and by the configurations seen, never by what the limiter
counted.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from celery_concurrency.demo.records import Run
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.limits import GLOBAL, limits_of

#: How many tasks a problem names.
NAMED: Final = 3


class Row(NamedTuple):
    """What was counted in one limit."""

    limit: str
    sent: int  # tasks
    run: int  # of these, how many ran to their end
    overlap: int  # the most runs at once
    max: int  # the highest that was in force: a lowered one stops no run; 0 is unlimited
    changed: bool  # other maxima were in force too

    @property
    def exceeded(self) -> bool:
        """More ran at once than the limit allowed."""
        return self.overlap > self.max > 0

    def cells(self) -> list[str]:
        """Return it as texts."""
        allowed = f"{self.max or 'unlimited'}{'*' if self.changed else ''}"
        return [self.limit, *map(str, (self.sent, self.run, self.overlap)), allowed]


class Report(NamedTuple):
    """What was counted in each limit, accounts included, and what went wrong."""

    rows: list[Row]
    problems: list[str]

    @property
    def status(self) -> int:
        """The exit status: 0 or 1."""
        return 1 if self.problems else 0

    def lines(self) -> Iterator[str]:
        """Return the report as text; of the accounts it shows the busiest."""
        accounts = [row for row in self.rows if row.limit.startswith("account:")]
        cells = [["limit", "sent", "run", "highest overlap", "allowed"]]
        cells += [row.cells() for row in self.rows if not row.limit.startswith("account:")]
        if accounts:
            worst = max(accounts, key=lambda row: (row.exceeded, row.overlap, row.sent))
            cells.append(worst.cells())
            cells[-1][0] += f" (the busiest of {len(accounts)})"
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for name, *numbers in cells:
            padded = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
            yield "  ".join((name.ljust(widths[0]), *padded))
        yield ""
        if any(row.changed for row in self.rows):
            yield "* changed while tasks ran: this is the highest that was in force"
        yield from (f"FAILED: {problem}" for problem in self.problems)
        if not self.problems:
            yield f"OK: all {self.rows[0].sent} tasks ran, each once, and no limit was exceeded"


def make_report(
    sent: Mapping[str, Mapping[str, str]],
    runs: Collection[Run],
    configs: Sequence[Stored],
    problems: Sequence[str] = (),
) -> Report:
    """Count, and judge.

    Args:
        sent: the tags of the tasks that were sent, by id.
        runs: what was recorded of them.
        configs: the configurations seen in force meanwhile, in their order.
        problems: what went wrong besides.
    """
    sent_in: dict[str, set[str]] = defaultdict(set)
    for task_id, tags in sent.items():
        for limit in limits_of(tags):
            sent_in[limit].add(task_id)
    runs_in: dict[str, list[Run]] = defaultdict(list)
    # A run without an end is reported, and counts in no overlap: its process may have died.
    ended = [run for run in runs if run.end is not None]
    for run in ended:
        for limit in limits_of(run.tags):
            runs_in[limit].append(run)
    ran = {run.task_id for run in ended}
    rows = []
    for limit in sorted({*sent_in, *runs_in}, key=lambda limit: (limit != GLOBAL, limit)):
        maxima = {one.config.max_of(limit) if one.config.enabled else 0 for one in configs}
        highest = 0 if 0 in maxima else max(maxima)
        ids = sent_in[limit]
        overlap = _highest_overlap(runs_in[limit])
        rows.append(Row(limit, len(ids), len(ids & ran), overlap, highest, len(maxima) > 1))
    if any(after.version != before.version + 1 for before, after in pairwise(configs)):
        exceeded = ["the configuration changed faster than it was looked at: can't judge by it"]
    else:
        exceeded = [
            f"{row.limit} had {row.overlap} at once and allowed {row.max}"
            for row in rows
            if row.exceeded
        ]
    paused = configs[-1].config.paused if configs else []
    return Report(rows, [*problems, *_task_problems([*sent], runs, paused), *exceeded])


def _highest_overlap(runs: Iterable[Run]) -> int:
    """Return how many of these runs, which have ended, ran at once at most."""
    # In the same moment, an end comes before a start: (t, -1) < (t, 1).
    steps = [step for run in runs for step in ((run.start, 1), (run.end or 0, -1))]
    running = highest = 0
    for _, step in sorted(steps):
        running += step
        highest = max(highest, running)
    return highest


def _task_problems(ids: list[str], runs: Collection[Run], paused: list[str]) -> Iterator[str]:
    if not ids:
        yield "no task was sent"
    began = Counter(run.task_id for run in runs)
    not_ended = {run.task_id for run in runs if run.end is None}
    for what, tasks in (
        ("did not run", [task for task in ids if not began[task]]),
        ("began and did not end", [task for task in ids if task in not_ended]),
        ("ran more than once", [task for task in ids if began[task] > 1]),
    ):
        if tasks:
            more = ", ..." if len(tasks) > NAMED else ""
            yield f"{len(tasks)} of {len(ids)} tasks {what}: {', '.join(tasks[:NAMED])}{more}"
    if paused and not set(ids) <= set(began):
        yield f"paused at the end: {', '.join(paused)}"
