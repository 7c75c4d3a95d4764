"""Later: what a limiter could not say while Redis was away is said by a thread of its process.

What it says is in ``limiter.py``; the thread is a ``Background``, of ``background.py``.
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
    """Does for tokens what could not be done while Redis was away: releases, counts, refusals.

    What is not done after ``PATIENCE`` seconds has expired by then. What was added first is done
    first.
    """

    PATIENCE: Final = 86_400
    PAUSE: Final = 1.0

    def __init__(self, release: Callable[[str], object]) -> None:
        self._release = release
        self._tokens: dict[str, tuple[float, Callable[[str], object]]] = {}
        self._lock = threading.Lock()
        self._thread = Background("concurrency-later", self._round)

    def add(self, token: str, action: Callable[[str], object] | None = None) -> None:
        """Do this for a token, instead of what was to be done for it; release by default."""
        with self._lock:
            self._tokens[token] = (time.monotonic() + self.PATIENCE, action or self._release)
        try:
            self._thread.wake()
        except RuntimeError as exc:
            logger.warning("what Redis missed is done later: %s", exc)

    def discard(self, token: str) -> None:
        """Do nothing for a token any more."""
        with self._lock:
            self._tokens.pop(token, None)

    def _round(self) -> float | None:
        with self._lock:
            entries = list(self._tokens.items())
        done = [(token, entry) for token, entry in entries if self._try(token, *entry)]
        with self._lock:
            for token, entry in done:
                if self._tokens.get(token) == entry:  # and was not added anew meanwhile
                    del self._tokens[token]
            if not self._tokens:
                return None
        if len(done) < len(entries):
            time.sleep(self.PAUSE)  # Redis is away: tokens that come now wait as well
        return 0.0

    def _try(self, token: str, deadline: float, action: Callable[[str], object]) -> bool:
        """Do it; return whether that is all for this token. A failure holds up no other."""
        try:
            action(token)
        except LimiterUnavailable:
            return time.monotonic() >= deadline
        except Exception as exc:  # noqa: BLE001 - the thread is there for the others too
            logger.warning("%s", exc)
        return True
