"""A thread that is there only while there is work for it.

Its users: ``limiter.py``, ``blocking_acquire.py``, ``worker/outbox.py``.
"""

import threading
from collections.abc import Callable


class Background:
    """Calls ``work`` in a daemon thread after each ``wake``, until there is nothing left to do.

    Args:
        name: of the thread.
        work: one round. Returns the seconds until the next round, which a ``wake`` cuts
            short, or None where nothing is left. It handles its own errors.
    """

    def __init__(self, name: str, work: Callable[[], float | None]) -> None:
        self._name = name
        self._work = work
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have a round begin now, or another one after that under way; returns at once.

        Raises:
            RuntimeError: there can be no more threads, or the interpreter ends.
        """
        with self._lock:
            self._woken.set()
            # A time limit may have struck between making a thread and starting it.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait until nothing is left to do, for so many seconds at most."""
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
