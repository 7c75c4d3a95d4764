"""The Celery project: one line gates it, and each task says what it counts in."""

import os

from celery import Celery

url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("shop", broker=url, backend=url)
app.conf.imports = ("celery_concurrency.signals",)


@app.task(concurrency={"account": lambda account: account})
def publish(account: str, video: str) -> str:
    """Publish a video; two of one account never run at once."""
    return f"{video} by {account}"
