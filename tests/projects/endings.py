"""Tasks that end in every way a body can end, each also with acks_late; and default settings."""

from __future__ import annotations

import os
import time

from celery import VERSION, Celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from tests.projects.busy import wait_for_file
from tests.support.sites import note

app = Celery("endings", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "retry")
app.conf.imports = ("celery_concurrency.signals",)
if "COUNTDOWN" in os.environ:
    app.conf.concurrency_retry_countdown = float(os.environ["COUNTDOWN"])
app.conf.broker_connection_retry_on_startup = True


def returns(self) -> str:
    return "done"


def raises(self) -> None:
    raise ValueError("done")


def retries(self) -> str:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return "done"


def ignores(self) -> None:
    raise Ignore()


def rejects(self) -> None:
    raise Reject("done")


def autoretries(self) -> str:
    if self.request.retries < 1:
        raise OSError("autoretry")
    return "done"


def soft_limit(self) -> str:
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        note("soft limit")
    return "done"


def soft_limit_fails(self) -> None:
    time.sleep(30)


#: Only since 5.7 Celery says that a task failed which rejects its message for good.
REJECTED = "FAILURE" if VERSION >= (5, 7) else "PENDING"

#: How each ends: the state, and how many runs it takes.
ENDINGS = {
    returns: ("SUCCESS", 1, {}),
    raises: ("FAILURE", 1, {}),
    retries: ("SUCCESS", 3, {"max_retries": 2}),
    ignores: ("PENDING", 1, {}),
    rejects: (REJECTED, 1, {}),
    autoretries: ("SUCCESS", 2, {"autoretry_for": (OSError,), "retry_backoff": False,
                                 "default_retry_delay": 0}),
    soft_limit: ("SUCCESS", 1, {"soft_time_limit": 5}),
    soft_limit_fails: ("FAILURE", 1, {"soft_time_limit": 5}),
}  # fmt: skip

for function, (_, _, options) in ENDINGS.items():
    for acks_late in (False, True):
        app.task(
            function,
            bind=True,
            name=function.__name__ + (".late" if acks_late else ""),
            acks_late=acks_late,
            **options,
        )


@app.task
def slow(file: str = "") -> str:
    """Run until the file is there."""
    note("slow begins")
    wait_for_file(file)
    note("slow ends")
    return "done"


@app.task(bind=True, max_retries=2)
def flaky(self) -> None:
    """Fail until there are no retries left; note each run's number, and when it was.

    A retry with no countdown at all would arrive before the run that sends it has
    given its token back, and wait for that.
    """
    note(f"{self.request.retries} {time.time()}")
    raise self.retry(exc=ValueError("no luck"), countdown=1)
