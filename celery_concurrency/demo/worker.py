"""Loaded into the demo's workers beside its project: what only a demo needs.

The project is ``project.py``.
"""

from __future__ import annotations

import os
import signal
from typing import Any, Final

from celery.signals import worker_process_init, worker_ready

from celery_concurrency.testing.lifeline import die_with_parent

#: What a worker prints when it takes tasks; at the log level WARNING it says nothing else.
READY: Final = "the worker is ready"


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery has no types
def say_ready(**_: Any) -> None:
    """Tell the demo, which reads the log."""
    print(READY, flush=True)


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def end_with_worker(**_: Any) -> None:
    """Have the pool's processes end with their worker, also while they wait for Redis."""
    die_with_parent(signal.SIGKILL, parent=os.getppid())()
