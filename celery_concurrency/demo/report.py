"""The report: whether all tasks ran, once each, and how many at once in each limit.

It judges by what ``load.py`` sent and read and by the configurations seen, not by the limiter.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import click

from celery_concurrency.cli.output import print_table
from celery_concurrency.demo.load import Task
from celery_concurrency.limiter.config.schema import Config
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


class Report(NamedTuple):
    """What was counted in each limit, accounts included, and what went wrong.

    Attributes:
        remarks: lines that are printed too.
        cancelled: tasks that somebody cancelled while they waited.
    """

    rows: list[Row]
    problems: list[str]
    remarks: Sequence[str] = ()
    cancelled: int = 0

    @property
    def status(self) -> int:
        """The exit status: 0 or 1."""
        return 1 if self.problems else 0

    def print(self) -> None:
        """Print it; of the accounts it shows the busiest."""
        accounts = [row for row in self.rows if row.limit.startswith("account:")]
        shown = {row.limit: row for row in self.rows if row not in accounts}
        if accounts:
            worst = max(accounts, key=lambda row: (row.exceeded, row.overlap, row.sent))
            shown[f"{worst.limit} (the busiest of {len(accounts)})"] = worst
        print_table(
            ("limit", "sent", "run", "highest overlap", "allowed"),
            (
                (name, *row[1:4], f"{row.max or 'unlimited'}{'*' if row.changed else ''}")
                for name, row in shown.items()
            ),
        )
        click.echo()
        if any(row.changed for row in self.rows):
            click.echo("* changed while tasks ran: this is the highest that was in force")
        for remark in self.remarks:
            click.echo(remark)
        for problem in self.problems:
            click.echo(f"FAILED: {problem}")
        if not self.problems:
            ran = f"all {self.rows[0].sent - self.cancelled} tasks ran"
            if self.cancelled:
                ran += f" that were not cancelled ({self.cancelled} were)"
            click.echo(f"OK: {ran}, each once but for refusals, and no limit was exceeded")


def make_report(
    tasks: Mapping[str, Task],
    configs: Sequence[Stored],
    problems: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Report:
    """Count, and judge.

    Args:
        tasks: all that were sent, by id, with their runs.
        configs: the configurations seen in force meanwhile, in their order.
        problems: what went wrong besides.
        remarks: lines for the report.
    """
    tasks_in: dict[str, list[Task]] = defaultdict(list)
    for task in tasks.values():
        for limit in limits_of(task.tags):
            tasks_in[limit].append(task)
    rows = []
    for limit in sorted(tasks_in, key=lambda limit: (limit != GLOBAL, limit)):
        inside = tasks_in[limit]
        ran = sum(any(run.did_it for run in task.runs.values()) for task in inside)
        maxima = {_max_of(limit, one.config) for one in configs}
        highest = 0 if 0 in maxima else max(maxima)
        overlap = _highest_overlap(inside)
        rows.append(Row(limit, len(inside), ran, overlap, highest, len(maxima) > 1))
    if any(after.version != before.version + 1 for before, after in pairwise(configs)):
        exceeded = ["the configuration changed faster than it was looked at: can't judge by it"]
    else:
        exceeded = [
            f"{row.limit} had {row.overlap} at once and allowed {row.max}"
            for row in rows
            if row.exceeded
        ]
    found = _task_problems(tasks, configs[-1].config.paused)
    cancelled = sum(task.cancelled for task in tasks.values())
    return Report(rows, [*problems, *found, *exceeded], remarks, cancelled)


def _max_of(limit: str, config: Config) -> int:
    """Return how many a configuration lets run at once at most; 0 for any number."""
    if not config.enabled:
        return 0
    adaptive = config.adaptive.get(limit)
    ceiling = adaptive.max if adaptive and adaptive.mode == "enforce" else 0
    # What an adaptive limit has in force may be less, and falls while runs go on.
    return min(filter(None, (config.max_of(limit), ceiling)), default=0)


def _highest_overlap(tasks: Iterable[Task]) -> int:
    """Return how many runs of these tasks there were at once at most."""
    # A run without an end is reported, and counts in no overlap: its process may have died.
    ended = [(run.start, run.end) for task in tasks for run in task.runs.values() if run.end]
    # In the same moment, an end comes before a start: (t, -1) < (t, 1).
    steps = sorted(step for start, end in ended for step in ((start, 1), (end, -1)))
    return max(accumulate(step for _, step in steps), default=0)


def _task_problems(tasks: Mapping[str, Task], paused: list[str]) -> Iterator[str]:
    if not tasks:
        yield "no task was sent"
    wrong = defaultdict(list)
    for task_id, task in tasks.items():
        if not task.runs and not task.cancelled:
            wrong["did not run"].append(task_id)
        if any(run.end is None for run in task.runs.values()):
            wrong["began and did not end"].append(task_id)
        if sum(not run.refused for run in task.runs.values()) > 1:
            wrong["ran more than once"].append(task_id)
        refused = task.runs and all(run.refused for run in task.runs.values())
        if refused and not task.cancelled:
            wrong["were refused and did not run again"].append(task_id)
    for what, ids in wrong.items():
        more = ", ..." if len(ids) > NAMED else ""
        yield f"{len(ids)} of {len(tasks)} tasks {what}: {', '.join(ids[:NAMED])}{more}"
    if paused and "did not run" in wrong:
        yield f"paused at the end: {', '.join(paused)}"
