"""The routes for monitoring: health, and metrics for Prometheus (``metrics.py``)."""

from flask import Response, abort

from celery_concurrency.api.envelope import failure, success
from celery_concurrency.api.models import MetricsQuery
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.inspect.health import Health, read_health

routes = Routes()


@routes.add("GET", "/health", data=Health)
def get_health(limiter: Limiter) -> Response:
    """Return 200 while Redis answers and has memory for tasks to begin and to wait.

    503 with the code out_of_memory means that it has none. Reading, cancelling, releasing and
    changes of the configuration still work then.
    """
    return success(read_health(limiter.keyspace).model_dump())


@routes.add(
    "GET", "/metrics", data=str, query=MetricsQuery, refusals=(501,),
    enveloped=False, media_type="text/plain",
)  # fmt: skip
def get_metrics(limiter: Limiter, query: MetricsQuery) -> Response:
    """Return the metrics in Prometheus' text format.

    Accounts have no labels, unless accounts=1 asks for them: then the limits include the thousand
    accounts with most waiting and running tasks. 501 if the extra that this needs is not
    installed.
    """
    try:
        from celery_concurrency import metrics  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "prometheus_client":
            raise
        problem = "install the extra: pip install 'celery-concurrency[prometheus]'"
        abort(failure(501, "extra_missing", [{"field": "", "problem": problem}]))
    text = metrics.expose(limiter, accounts=query.accounts)
    return Response(text, content_type=metrics.CONTENT_TYPE, headers={"Cache-Control": "no-store"})
