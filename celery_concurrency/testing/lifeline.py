"""Child processes that don't outlive their parent, however it ends.

``server.py`` starts one, and so does ``demo/processes.py``.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
#: How long a process may take to end before it is killed.
END_SECONDS: Final = 10


class Child(subprocess.Popen[bytes]):
    """A process in a session of its own, which ends with its parent.

    Args:
        command: the program and its arguments.
        log: its output is added to this file.
        how: the signal that it gets when its parent ends.
    """

    def __init__(self, command: Sequence[str], log: Path, how: signal.Signals) -> None:
        self.log = log
        with log.open("ab") as output:
            super().__init__(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches only the parent, which then ends this.
                start_new_session=True,
                preexec_fn=die_with_parent(how),
            )

    def output(self) -> str:
        """Return what it printed."""
        return self.log.read_text(errors="replace")

    def wait_or_kill(self) -> None:
        """Wait until it has ended, as it was asked to; kill it if that takes too long."""
        try:
            self.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(END_SECONDS)


def die_with_parent(how: signal.Signals, parent: int | None = None) -> Callable[[], None]:
    """Return what a child of this process calls to end with it, as Popen's ``preexec_fn``.

    Args:
        parent: the process to end with, where this is its child already.

    On Linux the kernel sends the signal when the thread that started the child ends.
    Elsewhere this does nothing: the children of a killed parent live on.
    """
    if sys.platform != "linux":
        return lambda: None
    parent = parent or os.getpid()
    # Looked up before the fork: little is safe between fork and exec.
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:
            os._exit(1)  # the parent had ended before

    return prepare
