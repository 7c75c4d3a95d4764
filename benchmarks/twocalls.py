"""Two calls of an empty script for each task: what no limiter that asks Redis can do without."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from celery.signals import task_postrun, task_prerun

from celery_concurrency.limiter.client import Client
from celery_concurrency.limiter.connection import connect


@cache
def _client(pid: int) -> tuple[Client, str]:
    client = connect(os.environ["BROKER_URL"])
    return client, str(client.script_load("return 1"))


@task_prerun.connect
@task_postrun.connect
def call(**_: Any) -> None:
    """Ask Redis for nothing."""
    client, sha = _client(os.getpid())
    client.evalsha(sha, 1, "floor")
