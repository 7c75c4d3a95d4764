"""The log of runs: each decision on one, as a line and as fields (``docs/logging.md``).

What else a worker logs, it logs where that happens; the loggers are in ``log.py``.
"""

from __future__ import annotations

import logging
from typing import Any

from celery_concurrency.limiter.limits import BUILTIN_DIMENSIONS, BUILTIN_TAGS, GLOBAL, split_limit
from celery_concurrency.log import WORKER_LOG, fields
from celery_concurrency.worker.run import Run

logger = logging.getLogger(WORKER_LOG)


def log_decision(
    level: int, task: Any, run: Run, decision: str, detail: str = "", **more: Any
) -> None:
    """Log what was decided of a run.

    Args:
        level: as of ``logging``.
        task: with its request.
        run: of that.
        decision: one of those that ``docs/logging.md`` lists.
        detail: more of the line, for people.
        more: the decision's own fields.
    """
    if not logger.isEnabledFor(level):
        return
    task_id = task.request.id
    tags = _tags_of(run)
    logger.log(
        level,
        "Task %s[%s] %s (%s)",
        task.name,
        task_id,
        _printable(f"{decision} {detail}".rstrip()),
        _printable(" ".join(f"{name}={value}" for name, value in tags.items()) or "no tags"),
        extra=fields(
            decision, task_id=task_id, task_name=task.name, token=run.token, tags=tags, **more
        ),
    )


def log_wait(level: int, task: Any, run: Run, detail: str) -> None:
    """Log that a run waits, and for what: no limit where the reason is another.

    Args:
        level, task, run, detail: as of ``log_decision``.
    """
    denied = run.denied
    log_decision(
        level, task, run, "waits", detail, reason=str(run.reason),
        limit=denied and denied.limit, current=denied and denied.held, max=denied and denied.max,
    )  # fmt: skip


def _tags_of(run: Run) -> dict[str, object]:
    """Return the tags that count; of a header of another name only the limits tell that."""
    tags = {name: run.tags[name] for name in BUILTIN_TAGS if name in run.tags}
    answer = run.granted or run.denied
    named = (split_limit(limit) for limit in (answer.limits if answer else ()))
    own = {dimension: name for dimension, name in named if dimension not in BUILTIN_DIMENSIONS}
    own.pop(GLOBAL, None)
    return {**tags, **own}


def _printable(text: str) -> str:
    """Return a text in one line: what a tag may hold must not look like a line of the log."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
