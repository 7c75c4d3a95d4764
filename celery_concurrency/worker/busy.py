"""What a task does where its limits are busy: it waits, is skipped, or replaces an older one.

Its author declares that, or its sender: the tag ``concurrency_busy``, which is no limit's.
``acquire.lua`` skips it, ``park.lua`` lets it replace others.
"""

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal, get_args

from celery_concurrency.errors import InvalidTag
from celery_concurrency.log import WORKER_LOG, fields

logger = logging.getLogger(WORKER_LOG)

Busy = Literal["wait", "skip", "replace"]
BUSY_TAG: Final = "concurrency_busy"


def busy_of(tags: Mapping[str, object]) -> Busy:
    """Return what a run with these tags does where its limits are busy.

    Raises:
        InvalidTag: the tag has another value.
    """
    value = tags.get(BUSY_TAG, "wait")
    for known in get_args(Busy):
        if value == known:
            return known  # type: ignore[no-any-return]  # get_args has no types
    raise InvalidTag(f"tag {BUSY_TAG!r} is {value!r}: make it 'wait', 'skip' or 'replace'")


def tell_canvas(task: Any, reason: str) -> None:
    """Tell a chord that a part of it was skipped, as Celery tells one that a part was revoked.

    No state is stored: Celery stores none of a task that is ignored.
    """
    request = task.request
    try:
        task.backend.mark_as_revoked(request.id, reason, request=request, store_result=False)
    except Exception:
        logger.exception(
            "the chord of %s[%s] was not told that it was skipped", task.name, request.id
        )


@cache
def say_not_replaced(task_name: str) -> None:
    """Log once per task that it waits like others, though it is to replace older ones."""
    logger.warning(
        "task %s waits without replacing older ones: only the waiting room can do that; set "
        "concurrency_waiting = 'handoff'",
        task_name,
        extra=fields("not replaced", task_name=task_name),
    )
