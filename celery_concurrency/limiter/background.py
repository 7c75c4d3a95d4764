"""A thread that exists only while there is work for it.

``limiter.py``, ``blocking_acquire.py`` and ``worker/outbox.py`` use it.
"""

import threading
from collections.abc import Callable


class Background:
    """Calls ``work`` in a daemon thread after each ``wake``, until there is nothing left to do.

    Args:
        name: the thread's name.
        work: one round. It returns the seconds until the next round, which a ``wake`` cuts
            short, or None if nothing is left. It handles its own errors.
    """

    def __init__(self, name: str, work: Callable[[], float | None]) -> None:
        self._name = name
        self._work = work
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Start a round now, or another one after the round in progress; return at once.

        Raises:
            RuntimeError: no more threads can be started, or the interpreter is ending.
        """
        with self._lock:
            self._woken.set()
            # A time limit may have come between creating a thread and starting it.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait until nothing is left to do, for at most this many seconds."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._woken.clear()
            pause = self._work()
            if pause is not None:
                self._woken.wait(pause)
                continue
            with self._lock:
                if not self._woken.is_set():
                    self._thread = None
                    return
