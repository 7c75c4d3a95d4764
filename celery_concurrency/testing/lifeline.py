"""Child processes that don't outlive their parent, however it ends.

Which processes there are is in ``server.py`` and ``demo/processes.py``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(how: signal.Signals, parent: int | None = None) -> Callable[[], None]:
    """Return what a child calls in itself, as Popen's ``preexec_fn``, to end with its parent.

    Linux: the kernel sends the signal when the thread that started the child
    ends. Elsewhere it does nothing: there a killed parent's children live on.

    Args:
        how: the signal.
        parent: the parent's process id; without, that of the caller of this function.
    """
    if sys.platform != "linux":
        return lambda: None
    parent = parent or os.getpid()
    # Looked up here, as little is safe between fork and exec.
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:
            os._exit(1)  # it ended before it was asked for

    return prepare
