"""OpenTelemetry: a span for a run's wait and one for its hold, beside Celery's own spans.

Without ``opentelemetry-instrumentation-celery``, or where it records nothing of a task, there are
none: they would belong to nothing. ``gate.py`` says when a run holds its tokens.
"""

import logging
import time
from importlib.metadata import version
from typing import Any, Final

from celery_concurrency.limiter.outcomes import Granted
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.worker.run import Run
from celery_concurrency.worker.run_log import waited_by

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]  # it is not installed

logger = logging.getLogger(WORKER_LOG)

WAIT_SPAN: Final = "concurrency wait"
HOLD_SPAN: Final = "concurrency hold"
LIMITS: Final = "concurrency.limits"
TOKEN: Final = "concurrency.token"  # noqa: S105 - the name of an attribute
EXPIRED: Final = "concurrency.expired"


def begin_hold(task: Any, run: Run) -> None:
    """Record the wait of a run whose body is about to begin, and begin the span of its hold.

    Celery's span of the run is the current one by now, whichever of us connected its signals first.
    """
    if trace is None or not isinstance(run.outcome, Granted):
        return
    running = trace.get_current_span()
    if not running.is_recording():
        return
    try:
        _begin(task, run, running)
    except Exception:
        logger.exception("no spans were made of %s[%s]", task.name, task.request.id)


def end_hold(run: Run, *, held: bool | None) -> None:
    """End the span of a run's hold.

    Args:
        held: it had its tokens until now; if not, they had expired. None if Redis can't say.
    """
    if run.hold_span is not None:
        if held is not None:
            run.hold_span.set_attribute(EXPIRED, not held)
        run.hold_span.end()


def _begin(task: Any, run: Run, running: Any) -> None:
    tracer = trace.get_tracer("celery_concurrency", version("celery-concurrency"))
    assert isinstance(run.outcome, Granted)
    known = {LIMITS: run.outcome.limits, TOKEN: run.token}
    now = time.time_ns()
    waited = waited_by(run)
    if waited:
        # It began before the run did, so it is no part of it, but of what sent the task.
        sender = _sender_of(task.request) or trace.set_span_in_context(running)
        span = tracer.start_span(
            WAIT_SPAN, sender, attributes=known, start_time=now - int(waited * 1e9),
            links=[trace.Link(running.get_span_context())],
        )  # fmt: skip
        span.end(now)
    run.hold_span = tracer.start_span(HOLD_SPAN, attributes=known, start_time=now)


def _sender_of(request: Any) -> Any:
    """Return the context of the span that sent the task; None if its message names none."""
    names = propagate.get_global_textmap().fields
    carrier = {name: str(request.get(name)) for name in names if request.get(name)}
    context = propagate.extract(carrier)
    return context if trace.get_current_span(context).get_span_context().is_valid else None
