"""A project with OpenTelemetry, as its documentation for Celery has it; spans become results."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import celeryd_init, worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from tests.support.recording import records_client

app = Celery("traced", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.broker_connection_retry_on_startup = True
app.conf.concurrency_waiting = os.environ["WAITING"]
app.conf.concurrency_retry_countdown = 0.2


class Records(SpanExporter):
    """Keeps spans where the test finds them."""

    def export(self, spans):
        with records_client(os.environ["RESULT_BACKEND"]) as client:
            client.rpush("spans", *(span.to_json() for span in spans))
        return SpanExportResult.SUCCESS


def instrument(**_):
    """Trace what is sampled by whoever sends it, and nothing else."""
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(0))
    provider.add_span_processor(SimpleSpanProcessor(Records()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


# For child processes the documentation names the first; threads have no such signal.
(celeryd_init if os.environ.get("THREADS") else worker_process_init).connect(instrument, weak=False)


@app.task
def publish(fails: bool = False) -> str:
    """Do nothing; its span says when."""
    if fails:
        raise ValueError("as told")
    return "published"
