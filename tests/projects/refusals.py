"""Tasks that a platform refuses once, and that end then in every way a task can."""

from __future__ import annotations

import os

from celery import Celery
from celery.exceptions import Ignore, Reject
from redis import Redis

from celery_concurrency import current_lease
from tests.support.sites import note

app = Celery("refusals", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "retry")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_redis_url = os.environ.get("LIMITER_URL", os.environ["BROKER_URL"])
app.conf.concurrency_redis_unavailable = os.environ.get("UNAVAILABLE", "retry")
app.conf.concurrency_retry_countdown = 0.2
app.conf.broker_connection_retry_on_startup = True
app.conf.concurrency_refusals = {
    os.environ.get("MAPPED", "tests.projects.refusals.RiskControl"): {
        "dimension": "account", "seconds": "retry_after", "default": 600
    },
    "tests.projects.refusals.PlatformError": {"dimension": "platform", "seconds": 60},
}  # fmt: skip


class PlatformError(Exception):
    """Anything that the platform says no with."""


class RiskControl(PlatformError):
    """Can't be unpickled, as many exceptions can't: Celery keeps a PlatformError for it."""

    def __init__(self, account: str, retry_after: float | None = None) -> None:
        super().__init__(f"{account} is watched")
        self.retry_after = retry_after


class Captcha(RiskControl):
    pass


def call(task, cls: type[Exception] = RiskControl) -> str:
    """Call the platform, which refuses the first run of a task."""
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        runs = client.incr(f"runs {task.request.id}")
    note(f"{task.name} {runs}")
    if runs == 1:
        raise cls(task.name)
    return "done"


def fails(self) -> str:
    return call(self)


def fails_by_a_kind_of_it(self) -> str:
    return call(self, Captcha)


def fails_from_it(self) -> str:
    try:
        return call(self)
    except RiskControl as exc:
        raise ValueError("refused") from exc


def autoretries(self) -> str:
    return call(self)


def retries(self) -> str:
    try:
        return call(self)
    except RiskControl as exc:
        raise self.retry(exc=exc, countdown=0)  # noqa: B904


def retries_plainly(self) -> str:
    try:
        return call(self)
    except RiskControl:
        raise self.retry(countdown=0)  # noqa: B904


def ignores(self) -> str:
    try:
        return call(self)
    except RiskControl:
        raise Ignore  # noqa: B904


def rejects(self) -> str:
    try:
        return call(self)
    except RiskControl as exc:
        raise Reject(exc, requeue=False)  # noqa: B904


def requeues(self) -> str:
    try:
        return call(self)
    except RiskControl as exc:
        raise Reject(exc, requeue=True)  # noqa: B904


def tells(self) -> str:
    try:
        return call(self)
    except RiskControl as exc:
        current_lease().refused("account", seconds=600, reason=f"RiskControl: {exc}")
        return "handled"


def tells_and_fails(self) -> str:
    try:
        return call(self)
    except RiskControl as exc:
        current_lease().refused("account", seconds=600, reason=f"RiskControl: {exc}")
        raise


AT_ONCE = {"default_retry_delay": 0, "retry_backoff": False}
#: How each ends: the state in the end, how many runs it takes, and its options.
ENDINGS = {
    fails: ("FAILURE", 1, {}),
    fails_by_a_kind_of_it: ("FAILURE", 1, {"throws": (PlatformError,)}),
    fails_from_it: ("FAILURE", 1, {}),
    autoretries: ("SUCCESS", 2, {"autoretry_for": (PlatformError,), **AT_ONCE}),
    retries: ("SUCCESS", 2, {}),
    retries_plainly: ("SUCCESS", 2, {}),
    ignores: ("PENDING", 1, {}),
    rejects: (None, 1, {"acks_late": True}),
    requeues: ("SUCCESS", 2, {"acks_late": True}),
    tells: ("SUCCESS", 1, {}),
    tells_and_fails: ("FAILURE", 1, {}),
}  # fmt: skip
NO_RETRIES = {"max_retries": 0}

for function, (_, _, options) in ENDINGS.items():
    app.task(function, bind=True, name=function.__name__, **options)
for function in (autoretries, retries, retries_plainly):
    name = f"{function.__name__}_no_more"
    app.task(function, bind=True, name=name, **ENDINGS[function][2], **NO_RETRIES)


@app.task(bind=True)
def refused_when_told(self, seconds: float | None = None) -> None:
    """Be refused, when the test says so."""
    note(f"begins {self.request.id}")
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        client.blpop(f"go on {self.request.id}", timeout=60)
    raise RiskControl("told", seconds)


@app.task(bind=True)
def goes_on_when_told(self) -> str:
    """Keep a slot, until the test says so."""
    note(f"begins {self.request.id}")
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        client.blpop(f"go on {self.request.id}", timeout=60)
    return "done"


@app.task
def add(*numbers: int) -> int:
    return sum(numbers)


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def failed(*_: object) -> None:
    note("link_error")
