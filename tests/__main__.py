"""The whole suite, as ``make test`` runs it: ``python -m tests [pytest's arguments]``.

Most tests run in several processes, a file at a time; those marked ``alone`` after them, one for
each core.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

#: More than cores: tests mostly wait.
PROCESSES = 6
#: A core for each of those that measure latency.
ALONE = 2
#: conftest.py orders the files and distributes them.
ORDERED = "--no-loadscope-reorder"


def main(arguments: list[str]) -> int:
    """Run both parts and return the exit status: the first failure's, if there is one."""
    statuses = []
    for processes, which in ((PROCESSES, "not alone"), (ALONE, "alone")):
        part = ("-n", str(processes), ORDERED, "-m", which)
        command = ("-m", "pytest", "--durations=20", *part, *arguments)
        print("python", *command, flush=True)
        statuses.append(subprocess.run([sys.executable, *command], check=False).returncode)
        if statuses[-1] == pytest.ExitCode.INTERRUPTED:
            break
    # With -k, one of the parts may have no test; only both without any is a failure.
    ran = [status for status in statuses if status != pytest.ExitCode.NO_TESTS_COLLECTED]
    return next(filter(None, ran), 0) if ran else pytest.ExitCode.NO_TESTS_COLLECTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
