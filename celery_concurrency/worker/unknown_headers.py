"""Unknown headers: one that is nearly a tag limits nothing, so the worker logs and counts it.

The worker's main process notes headers that it does not know (``gate.py``), and its thread
judges them (``housekeeping.py``). ``tags.py`` says which headers are tags.
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
from celery_concurrency.worker.busy import BUSY_TAG
from celery_concurrency.worker.weight import WEIGHT_TAG

logger = logging.getLogger(WORKER_LOG)

#: How the names of our own headers begin.
OURS: Final = "concurrency_"
#: Those of them that users set.
OUR_TAGS: Final = (BUSY_TAG, WEIGHT_TAG)

#: How many unknown headers are kept until the next tick, and how many are remembered.
NOTED_MOST: Final = 10_000
REMEMBERED_MOST: Final = 10_000


class UnknownHeaders:
    """The unknown headers of this process's messages; two threads may note and judge them."""

    def __init__(self) -> None:
        self._noted: deque[tuple[str, str]] = deque(maxlen=NOTED_MOST)
        self._harmless: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        self._tags: list[str] = []

    def note(self, task: str, headers: Mapping[str, object]) -> None:
        """Note which headers of a message are neither Celery's nor built-in tags.

        Args:
            task: the task's name.
            headers: all of the message's headers, Celery's included.
        """
        for header in headers.keys() - RESERVED_DIMENSIONS:
            if (task, header) not in self._harmless:
                self._noted.append((task, header))

    def judge(self, keyspace: Keyspace, dimensions: Iterable[str]) -> None:
        """Log headers that are nearly a tag, once per task, and count their messages.

        Args:
            dimensions: the user's own dimensions.

        Raises:
            LimiterUnavailable: Redis can't be asked; the header was logged but not counted.
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
            "task %s has the header %r, which no limit uses: did you mean %r? This is logged once "
            "per task; usage counts the messages",
            misnamed.task,
            misnamed.header,
            misnamed.tag,
            extra=fields(
                "misnamed header", task_name=misnamed.task, header=misnamed.header, tag=misnamed.tag
            ),
        )


def _meant_by(header: str, tags: list[str]) -> str | None:
    """Return the tag that a header is nearly; None if it is a tag, or not like any."""
    if header in (*tags, *OUR_TAGS) or header.startswith("_"):
        return None
    if header.startswith(OURS):
        # Compare only what differs; other names of ours are those that we put in ourselves.
        names = [tag.removeprefix(OURS) for tag in OUR_TAGS]
        meant = closest(header.removeprefix(OURS), names)
        return OURS + meant if meant else None
    return closest(header, tags)


#: This process's unknown headers, to which Celery's signals add.
unknown_headers: Final = UnknownHeaders()
