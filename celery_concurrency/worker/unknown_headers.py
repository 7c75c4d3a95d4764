"""Unknown headers: one that is nearly a tag limits nothing, so the worker says so and counts.

The worker's main process notes headers that it does not know (``gate.py``), and its thread
judges them (``housekeeping.py``). Which headers are tags is in ``tags.py``.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Final

from celery_concurrency.limiter.config.schema import RESERVED_DIMENSIONS
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import BUILTIN_TAGS
from celery_concurrency.limiter.stats.misnamed import Misnamed, count_misnamed
from celery_concurrency.log import WORKER_LOG, fields
from celery_concurrency.text import closest

logger = logging.getLogger(WORKER_LOG)

#: Headers of messages that are kept until the next tick, and what is remembered of them.
NOTED_MOST: Final = 10_000
REMEMBERED_MOST: Final = 10_000


class UnknownHeaders:
    """Those of the messages that this process receives; safe to note and judge in two threads."""

    def __init__(self) -> None:
        self._noted: deque[tuple[str, str]] = deque(maxlen=NOTED_MOST)
        self._harmless: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        self._tags: list[str] = []

    def note(self, task: str, headers: Mapping[str, object]) -> None:
        """Note which headers of a message are neither Celery's nor built-in tags.

        Args:
            task: its name.
            headers: with those of Celery.
        """
        for header in headers.keys() - RESERVED_DIMENSIONS:
            if (task, header) not in self._harmless:
                self._noted.append((task, header))

    def judge(self, keyspace: Keyspace, dimensions: Iterable[str]) -> None:
        """Log what is nearly a tag, once a task, and count it.

        Args:
            dimensions: the user's own.

        Raises:
            LimiterUnavailable: Redis can't be asked; it was logged, and is not counted.
        """
        tags = [*BUILTIN_TAGS, *dimensions]
        if tags != self._tags:
            self._tags, self._harmless = tags, set()
        counts: Counter[Misnamed] = Counter()
        for (task, header), count in self._take().items():
            tag = _meant_by(header, tags)
            if tag:
                counts[Misnamed(task, header, tag)] += count
            elif len(self._harmless) < REMEMBERED_MOST:
                self._harmless.add((task, header))
        for misnamed in counts:
            self._tell(misnamed)
        if counts:
            count_misnamed(keyspace, counts)

    def _take(self) -> Counter[tuple[str, str]]:
        noted: Counter[tuple[str, str]] = Counter()
        while self._noted:
            noted[self._noted.popleft()] += 1
        return noted

    def _tell(self, misnamed: Misnamed) -> None:
        if misnamed.task in self._told:
            return
        self._told.add(misnamed.task)
        logger.warning(
            "task %s comes with the header %r, by which no limit goes: did you mean %r? This is "
            "said once a task; usage counts it",
            misnamed.task,
            misnamed.header,
            misnamed.tag,
            extra=fields(
                "misnamed header", task_name=misnamed.task, header=misnamed.header, tag=misnamed.tag
            ),
        )


def _meant_by(header: str, tags: list[str]) -> str | None:
    """Return the tag that a header is nearly; None where it is one, or is not like any."""
    is_other = header in tags or header.startswith(("_", "concurrency_"))
    return None if is_other else closest(header, tags)


#: Those of this process, which Celery's signals know too.
unknown_headers: Final = UnknownHeaders()
