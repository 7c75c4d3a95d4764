"""A project that gates by base class, and with SIGNALS=1 by its imports too."""

from __future__ import annotations

import os

from celery import Celery

from celery_concurrency import ConcurrencyTask
from tests.support.sites import note

app = Celery("explicit", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
if os.environ.get("SIGNALS"):
    app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_retry_countdown = 0.3
app.conf.broker_connection_retry_on_startup = True


@app.task(base=ConcurrencyTask)
def gated() -> str:
    note("gated")
    return "gated"


class Base(ConcurrencyTask):
    """A base of one's own on top of ours, which is polite and calls super."""

    def before_start(self, task_id, args, kwargs):
        super().before_start(task_id, args, kwargs)
        note("before")


@app.task(base=Base)
def own_base() -> str:
    note("own_base")
    return "own_base"


@app.task
def plain() -> str:
    note("plain")
    return "plain"
