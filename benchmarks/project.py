"""Tasks that do nothing, with us and without: what ``throughput.py`` lets workers run."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("project", broker=os.environ["BROKER_URL"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
if "GATED" in os.environ:
    app.conf.imports = ("celery_concurrency.signals",)


@app.task
def nothing() -> None:
    """Do nothing."""
