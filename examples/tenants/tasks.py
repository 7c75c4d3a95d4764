"""A dimension of one's own: how many tasks of a tenant run at once."""

import os
import time

from celery import Celery

url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("tenants", broker=url, backend=url)
app.conf.imports = ("celery_concurrency.signals",)
# What the first process finds nothing of in Redis, it stores; from then on limits are
# changed at run time.
app.conf.concurrency_default_config = {
    "dimensions": {"tenant": {"max": 2, "overrides": {"acme": 5}}},
}


@app.task(concurrency={"tenant": lambda tenant: tenant})
def report(tenant: str, month: str) -> str:
    """Make a tenant's report of a month."""
    time.sleep(1)
    return f"{tenant}: {month}"
