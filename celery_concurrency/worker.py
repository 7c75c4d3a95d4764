"""The worker's own part: checks at start, and a thread that ticks about once a second.

The thread takes over configuration written by hand, takes back what expired
and keeps the statistics' history. It lives in the main process, and from before
the first task until after the last.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from celery import bootsteps

from celery_concurrency.apps import limiter_of, settings_of
from celery_concurrency.errors import ConcurrencyError, LimiterUnavailable
from celery_concurrency.limiter import Limiter

logger = logging.getLogger(__name__)

TICK: Final = 1.0  # seconds


class Ticker:
    """Does what has to be done now and then, in a thread of its own.

    Args:
        limiter: whose.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="concurrency-tick", daemon=True)
        self._away = False

    def start(self) -> None:
        """Tick once now, so that a first task finds all in order, then go on in the thread."""
        self.tick()
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for a tick under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def tick(self) -> None:
        """Do all of it once; Redis being away is logged when it begins and ends."""
        try:
            self._limiter.config.sync()
            self._limiter.expire()
            self._limiter.stats.snapshot()
        except LimiterUnavailable as exc:
            if not self._away:
                logger.warning("the limiter is away: %s", exc)
            self._away = True
        except ConcurrencyError as exc:
            logger.warning("%s", exc)
        else:
            if self._away:
                logger.warning("the limiter is back")
            self._away = False

    def _run(self) -> None:
        while not self._stopped.wait(TICK):
            try:
                self.tick()
            except Exception:
                # A tick lost is better than a thread lost.
                logger.exception("a tick failed; the next one comes in %s s", TICK)


class ConcurrencyStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """The worker's bootstep: started before the pool, stopped when the pool has drained."""

    # Steps stop in reverse: what requires the pool would stop before its last task ended.
    requires = ("celery.worker.components:Timer",)

    def create(self, parent: Any) -> Ticker:
        """Make the thread, not yet started; a wrong setting stops the worker here.

        Raises:
            ImproperlyConfigured: names the setting.
        """
        settings_of(parent.app)
        return Ticker(limiter_of(parent.app))
