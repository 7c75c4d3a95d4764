"""Celery's private and undocumented parts, each behind a function.

Each docstring names the part, the versions that have it, and what happens without it. A test
checks each part by name. kombu's private parts are in ``kombu_redis.py``, redis-py's in
``limiter/client.py``.
"""

from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery._state import _get_active_apps, connect_on_app_finalize
from celery.app.task import Context
from celery.app.trace import LOG_RECEIVED
from celery.worker import state as worker_state
from celery.worker.strategy import logger as _strategy_logger
from kombu.utils.imports import symbol_by_name


def real_app(app: Any) -> Any:
    """Return the app behind a proxy such as ``current_app``.

    ``Proxy._get_current_object``: Celery 5.5 to 5.7. Without it a proxy counts as an app.
    """
    return app._get_current_object() if hasattr(app, "_get_current_object") else app


def on_each_app(call: Callable[[Celery], object]) -> None:
    """Call a function with each app of this process once the app is finalized, now or later.

    ``celery._state.connect_on_app_finalize`` and ``_get_active_apps``: Celery 5.5 to 5.7.
    Without them this module can't be imported, and the worker doesn't start.
    """
    connect_on_app_finalize(call)
    for app in _get_active_apps():
        if app.finalized:
            call(app)


def tasks_of(app: Celery) -> list[Any]:
    """Return the tasks of an app that are bound so far.

    ``Celery._tasks``: Celery 5.5 to 5.7. ``app.tasks`` would finalize the app, which may be too
    early.
    """
    return list(app._tasks.values())


def watch_tasks(app: Celery, call: Callable[[type[Any]], None]) -> bool:
    """Call a function with each task class that is bound to an app from now on.

    ``app.annotations``: Celery 5.5 to 5.7. Without it no task is gated, and the worker doesn't
    start.

    Returns:
        False if an earlier call has already done so.
    """
    if any(isinstance(entry, _OnBound) for entry in app.annotations):
        return False
    app.annotations = [_OnBound(call), *app.annotations]
    return True


def unwatch_tasks(app: Celery) -> None:
    """Undo ``watch_tasks`` for classes that are bound from now on."""
    app.annotations = [entry for entry in app.annotations if not isinstance(entry, _OnBound)]


class _OnBound:
    """An entry of ``app.annotations``."""

    def __init__(self, call: Callable[[type[Any]], None]) -> None:
        self._call = call

    def annotate(self, cls: type[Any]) -> None:
        """Celery's hook for a task class that is about to be bound."""
        if not cls.name:  # the app's base class
            return
        original = cls.on_bound

        def on_bound(cls: type[Any], app: Celery) -> None:
            original(app)
            # The user's own annotations came in between, and may have brought a before_start.
            self._call(cls)

        cls.on_bound = classmethod(on_bound)


def headers_of(request: Any) -> dict[str, Any]:
    """Return the headers of a worker's request, with what Celery adds to them.

    Celery copies them into other messages and sends them to the child. An entry that is deleted
    here gets to neither.

    ``Request.request_dict``: Celery 5.5 to 5.7. Without it gated tasks fail.
    """
    headers: dict[str, Any] = request.request_dict
    return headers


class _Properties(dict[str, Any]):
    """The AMQP properties of a message, with one extra object attached."""

    ours: Any = None


def send_along(request: Any, ours: object) -> None:
    """Send an object along with a worker's request, to the process that will run it.

    The object is attached to the properties, because Celery copies properties into no other
    message. It would copy a separate field, as a header, into the next message that it makes
    from the request: in the child (``retry``) or in the main process
    (``task_retry_on_worker_lost``).
    """
    headers = headers_of(request)
    headers["properties"] = properties = _Properties(headers.get("properties") or {})
    properties.ours = ours


def sent_along(request: Any) -> Any:
    """Return the object that was sent along with a worker's request, or None."""
    return getattr(headers_of(request).get("properties"), "ours", None)


def ours_on(context: Any) -> Any:
    """Return the object that was sent along, from a task's own request, or None.

    ``Context.properties``: Celery 5.5 to 5.7. Without it gated tasks fail.
    """
    return getattr(context.properties, "ours", None)


def context_of(request: Any) -> Any:
    """Return the context that signals get of a worker's request that doesn't go to the pool.

    ``Request._context``: Celery 5.5 to 5.7. Without it a task whose group waits goes to the pool.
    """
    return request._context


def is_rate_limited(consumer: Any, task: Any) -> bool:
    """Return whether a worker holds this task's messages back by its ``rate_limit``.

    ``Consumer.disable_rate_limits`` and ``task_buckets``: Celery 5.5 to 5.7. Without them each
    message is received as always.
    """
    return not consumer.disable_rate_limits and bool(consumer.task_buckets[task.name])


def request_of(consumer: Any, message: Any, task: Any) -> Any:
    """Return the request that a worker makes of a message; nobody is told of it.

    ``celery.worker.strategy.default`` makes it like this: Celery 5.5 to 5.7. If that changes,
    each message is received as always.
    """
    return symbol_by_name(task.Request)(  # type: ignore[no-untyped-call]  # kombu
        message, app=consumer.app, task=task, hostname=consumer.hostname,
        eventer=consumer.event_dispatcher, connection_errors=consumer.connection_errors,
        body=message.body, headers=message.headers, decoded=False,
        utc=consumer.app.uses_utc_timezone(),
    )  # fmt: skip


def tell_received(consumer: Any, request: Any) -> None:
    """Log, and tell signals and events, that a request was received.

    ``celery.worker.strategy.default`` does it like this, and ``celery.app.trace.LOG_RECEIVED``
    is its line: Celery 5.5 to 5.7. Without that the worker doesn't start.
    """
    context = {
        "id": request.id, "name": request.name, "args": request.argsrepr,
        "kwargs": request.kwargsrepr, "eta": request.eta,
    }  # fmt: skip
    _strategy_logger.info(LOG_RECEIVED, context, extra={"data": context})
    signals.task_received.send(sender=consumer, request=request)
    request.send_event(
        "task-received", name=request.name, args=request.argsrepr, kwargs=request.kwargsrepr,
        root_id=request.root_id, parent_id=request.parent_id,
        retries=headers_of(request).get("retries", 0), eta=None, expires=None,
    )  # fmt: skip


def guard_pool(consumer: Any, lets_in: Callable[[Any], bool]) -> None:
    """Ask a function of each request that is to go to the pool, whether it may.

    ``Consumer.on_task_request``, which Celery reads after its bootsteps are made: Celery 5.5 to
    5.7. Without it the worker doesn't start.

    Args:
        consumer: a worker's, as its bootsteps get it.
        lets_in: False where it has seen to the request itself.
    """
    handle = consumer.on_task_request

    def on_task_request(request: Any) -> None:
        if lets_in(request):
            handle(request)

    consumer.on_task_request = on_task_request


def connection_of(backend: Any) -> dict[str, Any]:
    """Return how a result backend in Redis connects: its ``host``, ``port``, ``path`` and ``db``.

    ``RedisBackend.connparams``: Celery 5.5 to 5.7. Without it a task whose group waits goes to
    the pool. With Sentinel it has no host.
    """
    parameters: dict[str, Any] = backend.connparams
    return parameters


def stored_state(request: Any, state: str, reason: BaseException) -> dict[str, Any]:
    """Return a task's state as a result backend in Redis keeps it.

    ``Backend._get_result_meta``: Celery 5.5 to 5.7. Without it a task whose group waits goes to
    the pool.

    Args:
        request: a worker's request.
        state: one in which the task has not ended.
        reason: of that state.

    Returns:
        ``key``, ``value``, ``seconds`` after which it goes (0 for never), and its ``db``.
    """
    backend = request.task.backend
    result = backend.encode_result(reason, state)
    # A context of its own: the request's would be left in what the pool gets.
    context = Context(headers_of(request))
    meta = backend._get_result_meta(result, state, "", context)
    return {
        "key": backend.get_key_for_task(request.id).decode(),
        "value": backend.encode({**meta, "task_id": request.id}),
        "seconds": int(backend.expires or 0),
        "db": int(connection_of(backend).get("db") or 0),
    }


def active_requests() -> list[Any]:
    """Return the requests of the runs that live in this worker.

    ``WeakSet.data`` of ``celery.worker.state.active_requests``: Celery 5.5 to 5.7, Python 3.11
    to 3.13. The main thread adds to the set at the same time, and only its references can be
    copied atomically. Without it a tick's beat fails and logs so.
    """
    references = list(worker_state.active_requests.data)
    return [request for reference in references if (request := reference()) is not None]
