"""The routes of the waiting room: who waits (``limiter/inspect/waiting.py``), and cancelling."""

from flask import Response

from celery_concurrency.api.author import author, log_action
from celery_concurrency.api.envelope import failure, success
from celery_concurrency.api.models import Cancelled, CancelQuery, IdQuery, WaitingQuery
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.actions import note_action
from celery_concurrency.limiter.inspect.explanation import Explanation, explain
from celery_concurrency.limiter.inspect.short_ids import whole_id
from celery_concurrency.limiter.inspect.waiting import WaitingPage, read_waiting

routes = Routes()


@routes.add("GET", "/waiting", data=WaitingPage, query=WaitingQuery)
def get_waiting(limiter: Limiter, query: WaitingQuery) -> Response:
    """Return which tasks wait, by priority and then in the order they asked, a page at a time."""
    config = limiter.config.sync().config
    page = read_waiting(limiter.keyspace, config, query.limit, query.count, query.cursor)
    return success(page.to_dict())


@routes.add(
    "GET", "/waiting/<concurrency_id:task_id>", data=Explanation, query=IdQuery, refusals=(409,)
)
def get_why(limiter: Limiter, task_id: str, query: IdQuery) -> Response:
    """Return why a task waits: all of its limits, and which runs hold those that are full.

    The first characters of its id are enough, at least four, if no other id begins with them.
    """
    config = limiter.config.sync().config
    whole = whole_id(limiter.keyspace, query.id or task_id)
    found = explain(limiter.keyspace, config, whole)
    return success(found.to_dict()) if found else failure(404, "not_waiting")


@routes.add(
    "DELETE", "/waiting/<concurrency_id:task_id>", data=Cancelled, query=IdQuery, refusals=(409,)
)
def cancel_waiting(limiter: Limiter, task_id: str, query: IdQuery) -> Response:
    """Cancel a waiting task; a worker discards it as revoked.

    A task that was handed over no longer waits. The first characters of its id are enough, at
    least four, if no other id begins with them.
    """
    by, task_id = author(), whole_id(limiter.keyspace, query.id or task_id)
    if not limiter.waiting_room.cancel(task_id):
        return failure(404, "not_waiting")
    note_action(limiter.keyspace, by, "cancelled", task_id)
    message = "waiting task %s cancelled"
    log_action(by, "cancelled by operator", message, task_id, task_id=task_id)
    return success({"cancelled": 1}, "cancelled")


@routes.add("DELETE", "/waiting", data=Cancelled, query=CancelQuery)
def cancel_limit(limiter: Limiter, query: CancelQuery) -> Response:
    """Cancel all tasks that now wait and count in a limit, step by step.

    If a step fails, some of them are cancelled and some still wait.
    """
    by, limit = author(), query.limit
    count = sum(limiter.waiting_room.cancel_limit(limit))
    note_action(limiter.keyspace, by, "cancelled", limit, count)
    message = "%d waiting tasks of %s cancelled"
    log_action(by, "limit cancelled by operator", message, count, limit, limit=limit, count=count)
    return success({"cancelled": count}, "cancelled")
