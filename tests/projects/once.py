"""The same task as users of celery-once, of celery-singleton and of ours write it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery
from celery_once import QueueOnce
from celery_singleton import Singleton

from tests.support.sites import note

URL = os.environ["BROKER_URL"]
app = Celery("once", broker=URL, backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.broker_connection_retry_on_startup = True
app.conf.ONCE = {
    "backend": "celery_once.backends.Redis",
    "settings": {"url": URL, "default_timeout": 3600},
}
app.conf.singleton_backend_url = URL


def sync(name: str, shop: str, directory: str) -> None:
    """Go on as soon as somebody says so; or be killed."""
    note(f"{name} {shop}")
    Path(directory, f"{name} {shop}").write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    while not Path(directory, "go on").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@app.task(base=QueueOnce, once={"keys": ["shop"]})
def once(shop: str, directory: str, notify: bool = True) -> None:
    sync("once", shop, directory)


@app.task(base=Singleton, unique_on=["shop"])
def singleton(shop: str, directory: str, notify: bool = True) -> None:
    sync("singleton", shop, directory)


@app.task(concurrency={"report": lambda shop: shop, "concurrency_busy": "skip"})
def ours(shop: str, directory: str, notify: bool = True) -> None:
    sync("ours", shop, directory)
