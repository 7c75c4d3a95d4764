"""Refusals: which exception of a task says that a platform refused it, and what it says.

``gate.py`` tells the limiter at a run's end (``refusal_telling.py``); what the user maps is in
``refusal_settings.py``.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import takewhile
from typing import Any, Final

from celery import Celery
from celery.exceptions import MaxRetriesExceededError, TaskPredicate

from celery_concurrency.limiter.cooldowns import MAX_REASON, MAX_SECONDS
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.text import printable
from celery_concurrency.worker.apps import per_process, settings_of
from celery_concurrency.worker.refusal_settings import DEFAULT_SECONDS, RefusalEntry, classes_of

logger = logging.getLogger(WORKER_LOG)

#: Exceptions that are looked at for one that ended a run.
MOST_CAUSES: Final = 20


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an exception means that says that a platform refused the run.

    Attributes:
        path: the entry of ``concurrency_refusals`` that knows it.
        entry: that entry.
        seconds: for which it asks.
        reason: what people are shown: a line.
    """

    path: str
    entry: RefusalEntry
    seconds: float
    reason: str


class Refusals:
    """Knows refusals among exceptions.

    Raises:
        ImproperlyConfigured: a class can't be imported, or is none (``classes_of``).
    """

    def __init__(self, entries: Mapping[str, RefusalEntry]) -> None:
        self._entries = entries
        self._paths = classes_of(entries)
        # Classes that did not say for how long: each is warned of once.
        self._silent: set[type[BaseException]] = set()

    def find(self, ended_by: object) -> Meaning | None:
        """Return what it says that ended a run; None if that is no refusal.

        The nearest to it among its causes counts, and of that the most specific class.
        """
        for exc in _causes(ended_by) if isinstance(ended_by, BaseException) else ():
            # A task that is retried is no refusal, though Retry is an Exception too.
            for cls in takewhile(lambda cls: cls is not TaskPredicate, type(exc).__mro__):
                path = self._paths.get(cls)
                if path is not None:
                    seconds = self._seconds(exc, path)
                    return Meaning(path, self._entries[path], seconds, _reason(exc))
        return None

    def _seconds(self, exc: BaseException, path: str) -> float:
        entry = self._entries[path]
        if not isinstance(entry.seconds, str):
            return entry.seconds
        value: object = None
        seconds: float | None = None
        try:
            value = getattr(exc, entry.seconds)
            seconds = _seconds_in(value)
        except Exception as error:  # noqa: BLE001 - a property of theirs may raise anything
            value = error if value is None else value
        if seconds is None:
            seconds = DEFAULT_SECONDS if entry.default is None else entry.default
            # With a default, None may well be what it says where the platform did not.
            if value is not None or entry.default is None:
                self._warn(exc, path, value, seconds)
        return seconds

    def _warn(self, exc: BaseException, path: str, value: object, seconds: float) -> None:
        if type(exc) not in self._silent:
            self._silent.add(type(exc))
            logger.warning(
                "concurrency_refusals[%r]: in %s, %s is %.100s and says no seconds, so that it "
                "counts as %g s; this is said once",
                path, type(exc).__name__, self._entries[path].seconds, _shown(value), seconds,
            )  # fmt: skip


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - theirs may raise anything
        return f"a {type(value).__name__}"


@per_process()
def refusals_of(app: Celery) -> Refusals:
    """Return an app's refusals; their classes are imported.

    Raises:
        ImproperlyConfigured: see ``classes_of``.
    """
    return Refusals(settings_of(app).refusals)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from, the nearest first.

    An error that was raised while another one was handled counts as an error of its own, unless
    it was raised ``from`` that one. ``Retry``, ``Ignore``, ``Reject`` and the last of a task's
    retries are none: what they were given, and what was being handled, is what ended the run.
    """
    stack = [exc]
    seen: set[int] = set()
    while stack and len(seen) < MOST_CAUSES:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        handled = one.__cause__
        given: list[BaseException] = []
        if isinstance(one, TaskPredicate | MaxRetriesExceededError):
            # Not Retry.exc: Celery keeps of it what can be pickled, which may be of another class.
            given = [arg for arg in one.args if isinstance(arg, BaseException)]
            if handled is None and not one.__suppress_context__:
                handled = one.__context__
        stack.extend(reversed([*given, *([handled] if handled else [])]))


def _seconds_in(value: Any) -> float | None:
    """Return the seconds from now on that a value says, a week at most; None if it says none.

    Args:
        value: a number, or a time; also as text, as of the header ``Retry-After``.
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, datetime):
        seconds = value.timestamp() - time.time()
    else:
        try:
            seconds = float(value)
        except ValueError:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    return min(seconds, MAX_SECONDS) if 0 <= seconds < math.inf else None


def _reason(exc: BaseException) -> str:
    """Return the class and the first line of an exception, as people are shown it."""
    try:
        lines = str(exc)[: 4 * MAX_REASON].strip().splitlines()
    except Exception:  # noqa: BLE001 - it is theirs
        lines = []
    text = ": ".join([type(exc).__name__, *lines[:1]])
    return printable(text.strip())[:MAX_REASON]
