"""Refusals: which exception of a task says that a platform refused it, and for how long.

At a run's end ``gate.py`` reports it to the limiter (``refusal_telling.py``). The user's
settings are in ``refusal_settings.py``.
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

#: How many exceptions of a chain of causes are looked at.
MOST_CAUSES: Final = 20


@dataclass(frozen=True, slots=True)
class Meaning:
    """A refusal that an exception reports.

    Attributes:
        path: the key in ``concurrency_refusals`` that matched.
        entry: the entry under that key.
        seconds: how long a cool-down it asks for.
        reason: one line for people.
    """

    path: str
    entry: RefusalEntry
    seconds: float
    reason: str


class Refusals:
    """Recognizes refusals among exceptions.

    Raises:
        ImproperlyConfigured: an entry can't be imported or is not a class (``classes_of``).
    """

    def __init__(self, entries: Mapping[str, RefusalEntry]) -> None:
        self._entries = entries
        self._paths = classes_of(entries)
        # Classes that did not say for how long; each is logged once.
        self._silent: set[type[BaseException]] = set()

    def find(self, ended_by: object) -> Meaning | None:
        """Return the refusal that ended a run; None if the exception is not one.

        The nearest match in the chain of causes counts, and for it the most specific class.
        """
        for exc in _causes(ended_by) if isinstance(ended_by, BaseException) else ():
            # A retry is not a refusal, though Retry is an Exception too.
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
        except Exception as error:  # noqa: BLE001 - a user's property may raise anything
            value = error if value is None else value
        if seconds is None:
            seconds = DEFAULT_SECONDS if entry.default is None else entry.default
            # With a default, None may well mean that the platform did not say.
            if value is not None or entry.default is None:
                self._warn(exc, path, value, seconds)
        return seconds

    def _warn(self, exc: BaseException, path: str, value: object, seconds: float) -> None:
        if type(exc) not in self._silent:
            self._silent.add(type(exc))
            logger.warning(
                "concurrency_refusals[%r]: in %s, %s is %.100s, which is not a time, so it "
                "counts as %g s. This is logged once",
                path, type(exc).__name__, self._entries[path].seconds, _shown(value), seconds,
            )  # fmt: skip


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        return f"a {type(value).__name__}"


@per_process()
def refusals_of(app: Celery) -> Refusals:
    """Return an app's refusals, and import their classes.

    Raises:
        ImproperlyConfigured: see ``classes_of``.
    """
    return Refusals(settings_of(app).refusals)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, the nearest first.

    An error that was raised while another one was handled stands alone, unless it was raised
    ``from`` that one. ``Retry``, ``Ignore``, ``Reject`` and the error after a task's last retry
    did not end the run themselves: the exception that they were given or that was being handled
    did.
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
            # Not Retry.exc: Celery makes that picklable, maybe as another class.
            given = [arg for arg in one.args if isinstance(arg, BaseException)]
            if handled is None and not one.__suppress_context__:
                handled = one.__context__
        stack.extend(reversed([*given, *([handled] if handled else [])]))


def _seconds_in(value: Any) -> float | None:
    """Return a value as seconds from now, a week at most; None if it is not a time.

    Args:
        value: a number or a time, also as text, such as the header ``Retry-After``.
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
    """Return the class and the first line of an exception, for people."""
    try:
        lines = str(exc)[: 4 * MAX_REASON].strip().splitlines()
    except Exception:  # noqa: BLE001 - a user's exception may raise anything
        lines = []
    text = ": ".join([type(exc).__name__, *lines[:1]])
    return printable(text.strip())[:MAX_REASON]
