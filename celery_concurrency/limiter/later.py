"""Later: a thread makes the calls that the limiter could not make while Redis was away.

``limiter.py`` adds the calls; the thread is a ``Background`` (``background.py``).
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.background import Background
from celery_concurrency.log import LIMITER_LOG

logger = logging.getLogger(LIMITER_LOG)


class Later:
    """Makes calls for tokens that failed while Redis was away: releases, counts, refusals.

    The first added is made first. A call is dropped after ``PATIENCE`` seconds, when the tokens
    have expired.
    """

    PATIENCE: Final = 86_400
    PAUSE: Final = 1.0

    def __init__(self, release: Callable[[str], object]) -> None:
        self._release = release
        self._tokens: dict[str, tuple[float, Callable[[str], object]]] = {}
        self._lock = threading.Lock()
        self._thread = Background("concurrency-later", self._round)

    def add(self, token: str, action: Callable[[str], object] | None = None) -> None:
        """Make this call for a token later, in place of an earlier one; by default a release."""
        with self._lock:
            self._tokens[token] = (time.monotonic() + self.PATIENCE, action or self._release)
        try:
            self._thread.wake()
        except RuntimeError as exc:
            logger.warning("calls that Redis missed are repeated later: %s", exc)

    def discard(self, token: str) -> None:
        """Drop the call for a token."""
        with self._lock:
            self._tokens.pop(token, None)

    def _round(self) -> float | None:
        with self._lock:
            entries = list(self._tokens.items())
        done = [(token, entry) for token, entry in entries if self._try(token, *entry)]
        with self._lock:
            for token, entry in done:
                if self._tokens.get(token) == entry:  # it was not replaced in the meantime
                    del self._tokens[token]
            if not self._tokens:
                return None
        if len(done) < len(entries):
            time.sleep(self.PAUSE)  # Redis is away: new calls wait as well
        return 0.0

    def _try(self, token: str, deadline: float, action: Callable[[str], object]) -> bool:
        """Make a call; return whether it is done. A failure does not stop the others."""
        try:
            action(token)
        except LimiterUnavailable:
            return time.monotonic() >= deadline
        except Exception as exc:  # noqa: BLE001 - the thread must go on with the others
            logger.warning("%s", exc)
        return True
