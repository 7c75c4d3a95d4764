"""The routes that monitoring asks: health, and Prometheus' metrics (``metrics.py``)."""

from flask import Response, abort

from celery_concurrency.api.envelope import failure, success
from celery_concurrency.api.models import MetricsQuery
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.inspect.health import Health, read_health

routes = Routes()


@routes.add("GET", "/health", data=Health)
def get_health(limiter: Limiter) -> Response:
    """Return 200 while Redis answers, and has memory for tasks to begin and to wait.

    503 with the code out_of_memory: it has none. Who only looks is answered all the same,
    and cancelling, releasing and changes of the configuration go on.
    """
    return success(read_health(limiter.keyspace).model_dump())


@routes.add(
    "GET", "/metrics", data=str, query=MetricsQuery, refusals=(501,),
    enveloped=False, media_type="text/plain",
)  # fmt: skip
def get_metrics(limiter: Limiter, query: MetricsQuery) -> Response:
    """Return the metrics in Prometheus' text format.

    No label has a value per account, unless accounts=1 asks for it: then the thousand
    accounts with which most tasks wait and run are among the limits. 501 where the
    extra is not installed that this needs.
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
