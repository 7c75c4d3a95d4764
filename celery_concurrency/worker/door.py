"""The door: a task whose group waits already is parked as it arrives, before it takes a slot.

Who needs the same limits as a waiter has to wait as well. So the main process parks such a
message itself, as it would go to the pool, and needs no child for that. Each group's first run
goes to the pool and is denied there (``gate.py``), by which the door knows the group. So does
whatever is unusual, and all where Redis does not answer.
"""

import logging
import time
from typing import Any, Final, NamedTuple

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app.task import Task
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from celery.contrib.abortable import AbortableTask
from celery.exceptions import Retry
from celery.states import RETRY
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError
from kombu.utils.functional import LRUCache

from celery_concurrency.errors import LimiterUnavailable, OutOfMemory
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import Denied, Ticket
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.scripts.constants import LOOK_AHEAD, RANK
from celery_concurrency.worker import kombu_redis
from celery_concurrency.worker.ahead import requests_of
from celery_concurrency.worker.apps import limiter_of, per_process, settings_of
from celery_concurrency.worker.busy import busy_of
from celery_concurrency.worker.celery_compat import (
    connection_of,
    context_of,
    headers_of,
    sent_along,
    stored_state,
    tell_received,
)
from celery_concurrency.worker.parking import waiter_of
from celery_concurrency.worker.progress import Stage, note
from celery_concurrency.worker.run import Run, reason_of
from celery_concurrency.worker.run_log import log_arrival
from celery_concurrency.worker.tags import find_tags
from celery_concurrency.worker.waiting_mode import waiting_mode_of
from celery_concurrency.worker.weight import weight_of

logger = logging.getLogger(WORKER_LOG)

#: Groups that a door knows at most; those that it saw last.
GROUPS_MOST: Final = 10_000


class _Seen(NamedTuple):
    """A message in its queue.

    Attributes:
        text: as the queue has it.
        queue: where that is (``kombu_redis.queue_before``).
    """

    text: bytes
    queue: dict[str, Any]


class _Place(NamedTuple):
    """Where a message waits.

    Attributes:
        here: what else was written with that.
        following: the messages that come next in its queue.
    """

    here: dict[str, dict[str, Any]]
    following: list[bytes]


class Door:
    """Parks, in a worker's main process, the messages of groups that wait already."""

    def __init__(self, app: Any) -> None:
        self._app = app
        #: The worker's, whose queues are looked at ahead; None for none.
        self.consumer: Any = None
        # Those in which a run was denied, as far as this worker knows.
        self._groups: Any = LRUCache(limit=GROUPS_MOST)  # type: ignore[no-untyped-call]  # kombu

    def note_denied(self, request: Any) -> None:
        """Know the group of a request from now on: its run was denied."""
        if not settings_of(self._app).park_on_receipt:
            return
        try:
            group = self._group_of(_tags_of(request))
        except Exception:  # in this process its declared tags may not work
            logger.debug("the limits of %s are not known here", request.id, exc_info=True)
        else:
            self._groups[group] = True

    def lets_in(self, request: Any) -> bool:
        """Return whether a request is to go to the pool; if not, its message waits."""
        run: Run | None = sent_along(request)
        if run is None or not self._groups or not _is_usual(request, run):
            return True
        try:
            place = self._park(request, run)
        except Exception as exc:  # whatever it is: in the pool it is met by all that the gate does
            logger.debug("Task %s[%s] is not parked here", request.name, request.id, exc_info=True)
            self._meet(exc)
            return True
        if place is None:
            return True
        _end(request, run, is_acked="unacked" in place.here)
        if place.following:
            self._look_ahead(request.message, place.following)
        return False

    def _meet(self, error: Exception) -> None:
        if isinstance(error, LimiterUnavailable | OperationalError):
            # Others are not to hold up this process meanwhile.
            self._groups.clear()

    def _look_ahead(self, message: Any, texts: list[bytes]) -> None:
        """Park those that come after a message and have to wait too, straight from its queue."""
        try:
            queue = kombu_redis.queue_before(message) or {}
            for text, request in requests_of(self.consumer, message, reversed(texts)):
                run = sent_along(request)
                if not _is_usual(request, run) or not self._knows(_tags_of(request)):
                    continue
                if self._park(request, run, _Seen(text, queue)) is None:
                    break  # one that can run stands before it, or others take what comes next
                kombu_redis.leave_unacked(request)
                tell_received(self.consumer, request)
                _end(request, run, is_acked=False)
        except Exception as exc:  # whatever it is: they are received as always, or wait
            logger.debug("messages that come next are received as always", exc_info=True)
            self._meet(exc)

    def _knows(self, tags: dict[str, object]) -> bool:
        """Return whether a run's group waits, as far as this worker knows, and the run would."""
        return self._group_of(tags) in self._groups and busy_of(tags) == "wait"

    def _group_of(self, tags: dict[str, object]) -> str:
        return group_of(limits_of(tags, limiter_of(self._app).dimensions), weight_of(tags))

    def _park(self, request: Any, run: Run, seen: _Seen | None = None) -> _Place | None:
        """Park a request's message if its group waits.

        Args:
            seen: its message in its queue, if it was not received.

        Returns:
            its place; None if it has none.
        """
        limiter = limiter_of(self._app)
        tags = _tags_of(request)
        if not self._knows(tags) or (seen is None and request.revoked()):
            return None
        limits = limits_of(tags, limiter.dimensions)
        weight = weight_of(tags)
        denied = Denied(run.token, limits, limits[-1], None, None, _ticket_now(run), weight=weight)
        waiter = waiter_of(self._app, run.token, limits, run.message, None, weight=weight)
        here = self._kept_here(request, denied, seen)
        if waiter is None or (_keeps_state(request) and "result" not in here):
            # Written by another call than its place, its state might stay for ever.
            return None
        try:
            following = limiter.join(waiter, run.rank, here, seen.text if seen else b"")
        except OutOfMemory:
            return None
        except LimiterUnavailable:
            # It may wait by now, or soon. Parked by the child as well, it waits once.
            run.outcome, run.may_wait = denied, True
            note(run.token, Stage.ASKING)
            raise
        if following is None:
            if seen is None:
                self._groups.pop(self._group_of(tags), None)
            return None
        run.outcome, run.tags = denied, tags
        return _Place(here, following)

    def _kept_here(
        self, request: Any, denied: Denied, seen: _Seen | None
    ) -> dict[str, dict[str, Any]]:
        """Return what the limiter's server keeps of a task, beside its message."""
        kept = {}
        if seen:
            kept["queued"] = dict(seen.queue)
        elif waiting_mode_of(self._app).same_server:
            kept["unacked"] = kombu_redis.unacked(request.message)
            queue = kombu_redis.queue_before(request.message) if self.consumer else None
            # Others like it follow as a rule, and what expires is received as always (ahead.py).
            if queue and not request.expires:
                kept["next"] = {**queue, "most": LOOK_AHEAD}
        if _keeps_state(request) and keeps_results(self._app, request.task.backend):
            kept["result"] = stored_state(request, RETRY, reason_of(denied))
        for one in kept.values():
            if one["db"] == limiter_of(self._app).keyspace.database:
                del one["db"]
        return kept


def _tags_of(request: Any) -> dict[str, object]:
    return find_tags(request.task, headers_of(request), request.args, request.kwargs)


def _ticket_now(run: Run) -> Ticket:
    """Return a ticket by this machine's clock, for a run whose true one may not be known."""
    return Ticket(run.rank * RANK + int(time.time() * 1000))


def _is_usual(request: Any, run: Run) -> bool:
    """Return whether nothing about a request has to be done in the pool."""
    return (
        run.ticket is None
        and run.outcome is None  # it was not given up
        and not run.broadcast
        and not request.delivery_info["redelivered"]
        and not headers_of(request).get("headers")  # they would be its custom ones
        and type(request.task).on_retry is Task.on_retry
        and not isinstance(request.task, AbortableTask)
    )


def _keeps_state(request: Any) -> bool:
    """Return whether the state of a task that waits is written anywhere."""
    return request.store_errors and not isinstance(request.task.backend, DisabledBackend)


def keeps_results(app: Any, backend: Any) -> bool:
    """Return whether the limiter's server keeps a backend's results, and as a script reads them.

    By its address: this process must not wait for a server of somebody else's.
    """
    if type(backend) is not RedisBackend or backend.serializer != "json":
        return False
    ours = limiter_of(app).redis.get_connection_kwargs()
    names = ("path",) if ours.get("path") else ("host", "port")
    return all(ours.get(name) == connection_of(backend).get(name) is not None for name in names)


def _end(request: Any, run: Run, *, is_acked: bool) -> None:
    """Let a request end as the pool's children let one end that was denied."""
    worker_state.task_ready(request)
    if is_acked:
        kombu_redis.note_acked(request.message)
        request.acknowledged = True
    request.acknowledge()
    log_arrival(request.task, run)
    request.send_event("task-retried", exception=repr(run.reason), traceback="")
    if signals.task_retry.receivers:
        retry = Retry(exc=run.reason)
        signals.task_retry.send(
            sender=request.task,
            request=context_of(request),
            reason=retry,
            einfo=exception_info(retry),
        )


def exception_info(error: Exception) -> ExceptionInfo:
    """Return what Celery passes on of an error that was raised."""
    try:
        raise error
    except type(error):
        return ExceptionInfo()


@per_process()
def door_of(app: Any) -> Door:
    """Return this process's door for an app."""
    return Door(app)
