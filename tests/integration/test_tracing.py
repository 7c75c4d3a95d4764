"""Spans of OpenTelemetry: a task's wait and hold, beside the spans of Celery's instrumentation."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime

import pytest

from tests.support.recording import records_client
from tests.support.workers import wait_for

RUN = "run/tests.projects.traced.publish"
SENDER = "00f067aa0ba902b7"


def spans_of(redis_url, trace_id):
    """Return the spans of a trace by name, in the order of their ends."""
    with records_client(redis_url) as client:
        texts = client.lrange("spans", 0, -1)
    found: dict[str, list] = {}
    for text in texts:
        span = json.loads(text)
        if span["context"]["trace_id"] == f"0x{trace_id}":
            found.setdefault(span["name"], []).append(span)
    return found


def run_of(spans):
    """Return Celery's span of the run that held tokens, once both are there."""
    runs = {span["context"]["span_id"]: span for span in spans.get(RUN, ())}
    holds = spans.get("concurrency hold")
    return holds and runs.get(holds[0]["parent_id"])


def seconds_of(span):
    start, end = (datetime.fromisoformat(span[name]) for name in ("start_time", "end_time"))
    return (end - start).total_seconds()


@pytest.fixture(
    params=[
        pytest.param(("prefork", "", "handoff"), id="prefork"),
        pytest.param(("threads", "1", "retry"), id="threads, by countdown"),
    ]
)
def started(request, worker, project):
    pool, threads, waiting = request.param
    tasks = project("traced", THREADS=threads, WAITING=waiting)
    worker("traced", pool=pool)
    return tasks


def send(tasks, trace_id, *args, sampled=True, **headers):
    traceparent = f"00-{trace_id}-{SENDER}-0{int(sampled)}"
    return tasks.publish.apply_async(args, headers={"traceparent": traceparent, **headers})


def test_the_spans_of_a_wait_and_of_a_hold(started, limiter, redis_url):
    waited, unsampled, failed, free = (digit * 32 for digit in "1234")
    with limiter.acquire(account="a"):
        result = send(started, waited, account="a")
        hidden = send(started, unsampled, account="a", sampled=False)
        wait_for(lambda: result.state == "RETRY" and hidden.state == "RETRY", what="both wait")
        held_from = limiter.keyspace.now()
    assert result.get(timeout=30) == hidden.get(timeout=30) == "published"
    send(started, failed, True, account="a").get(timeout=30, propagate=False)
    send(started, free, account="b").get(timeout=30)
    for trace_id in (waited, failed, free):
        # Celery's span of a run ends after its result is stored.
        wait_for(lambda trace_id=trace_id: run_of(spans_of(redis_url, trace_id)), what="spans")
    spans = spans_of(redis_url, waited)
    run = run_of(spans)
    (wait,), (hold,) = spans["concurrency wait"], spans["concurrency hold"]
    assert wait["parent_id"] == f"0x{SENDER}"
    assert [link["context"]["span_id"] for link in wait["links"]] == [run["context"]["span_id"]]
    assert wait["end_time"] == hold["start_time"]
    assert wait["attributes"]["concurrency.limits"] == ["global", "account:a"]
    assert hold["attributes"]["concurrency.expired"] is False
    # It began to wait before the test saw it wait.
    began = datetime.fromisoformat(wait["start_time"]).timestamp()
    assert began <= held_from + 0.05
    assert seconds_of(wait) > 0
    assert spans_of(redis_url, unsampled) == {}
    assert "concurrency wait" not in spans_of(redis_url, free)


def test_without_opentelemetry_nothing_is_missed():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from types import SimpleNamespace\n"
        "import celery_concurrency.signals\n"
        "from celery_concurrency.limiter.outcomes import Granted\n"
        "from celery_concurrency.worker import tracing\n"
        "run = SimpleNamespace(outcome=Granted('t:1', ('global',), 1, 1), hold_span=None)\n"
        "tracing.begin_hold(None, run)\n"
        "tracing.end_hold(run, held=True)\n"
        "print(run.hold_span)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "None"
