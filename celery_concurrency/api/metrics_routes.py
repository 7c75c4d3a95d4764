"""The route that Prometheus scrapes. The metrics are made in ``metrics.py``."""

from typing import Any

from flask import Response

from celery_concurrency.api.errors import Refusal
from celery_concurrency.api.models import MetricsQuery
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter

routes = Routes()


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
    metrics = _metrics()
    text = metrics.expose(limiter, accounts=query.accounts)
    return Response(text, content_type=metrics.CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def _metrics() -> Any:
    try:
        from celery_concurrency import metrics  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "prometheus_client":
            raise
        problem = "install the extra: pip install 'celery-concurrency[prometheus]'"
        raise Refusal(501, "extra_missing", [{"field": "", "problem": problem}]) from exc
    return metrics
