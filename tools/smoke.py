"""A gated task on an installed celery-concurrency: the last look before a release.

Run with the Python of the environment to look at, in an empty directory and away
from the source tree: ``python smoke.py TREE``. It uses nothing but the standard
library and what that environment has. A task waits for its account, runs when the
account is free, and the command line shows both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = """
from celery import Celery

app = Celery("smoke", broker={url!r}, backend={url!r})
app.conf.imports = ("celery_concurrency.signals",)
app.conf.broker_connection_retry_on_startup = True


@app.task
def publish(video):
    return "published " + video
"""
SECONDS = 60
CELERY = (sys.executable, "-m", "celery", "-A", "smoke_project")


def main(tree: Path) -> None:
    """Run the task, or end with what is wrong."""
    import celery_concurrency

    home = Path(celery_concurrency.__file__).resolve().parent
    assert not home.is_relative_to(tree / "celery_concurrency"), f"{home} is the source tree's"

    from celery_concurrency.testing.server import Server

    with Server() as server:
        Path("smoke_project.py").write_text(PROJECT.format(url=server.url()))
        with worker(Path("worker.log")):
            run_task(server.url())
    print(f"a task waited and ran, on {home}")


def run_task(url: str) -> None:
    """Hold an account, see a task of it wait, let go, see it run."""
    sys.path.insert(0, str(Path.cwd()))
    from smoke_project import publish  # written a moment ago

    from celery_concurrency.limiter import Limiter
    from celery_concurrency.limiter.connection import connect

    limiter = Limiter(connect(url))
    with limiter.acquire(account="acc123", timeout=SECONDS):
        result = publish.apply_async(("v1",), headers={"account": "acc123"})
        wait_for(lambda: result.state == "RETRY", "the task waits")
        used = usage()
        assert used["accounts"]["acc123"]["current"] == 1, used
    assert result.get(timeout=SECONDS) == "published v1"
    wait_for(lambda: usage()["global"]["current"] == 0, "all tokens are back")


def usage() -> Any:
    """Return what the command line shows."""
    command = [*CELERY, "concurrency", "usage", "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@contextmanager
def worker(log: Path) -> Iterator[None]:
    """Run a worker while the block does, from when it is ready."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*CELERY, "worker", "--concurrency", "1", "--loglevel", "INFO"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: process.poll() is not None or " ready." in log.read_text(), "it is ready")
        assert process.poll() is None, "the worker ended"
        yield
    except BaseException:
        print(log.read_text(), file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
