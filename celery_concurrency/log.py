"""The log: one logger a floor, and records that programs can read.

Each record of a decision has an attribute ``concurrency``: an object of fields, of
which ``decision`` says what happened. ``docs/logging.md`` lists them.
"""

from typing import Any, Final

#: The limiter, without Celery: configuration, and calls repeated in the background.
LIMITER_LOG: Final = "celery_concurrency.limiter"
#: In Celery: what becomes of each run, and the worker's housekeeping.
WORKER_LOG: Final = "celery_concurrency.worker"
#: HTTP: who changed something, and what went wrong.
API_LOG: Final = "celery_concurrency.api"


def fields(decision: str, **more: Any) -> dict[str, Any]:
    """Return the ``extra`` of a record.

    Args:
        decision: what happened.
        more: what is known of it; None where something has no value here.
    """
    return {"concurrency": {"decision": decision, **more}}
