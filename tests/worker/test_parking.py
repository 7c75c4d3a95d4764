"""Parked messages: what the waiting room gets of a task."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from celery import Celery
from celery.utils.time import maybe_iso8601, maybe_make_aware

from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.scripts.constants import PARKED
from celery_concurrency.worker.parking import ticket_of, waiter_of
from tests.worker.test_outbox import KEPT

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def east(monkeypatch):
    """The machine's clock is eight hours ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("east")
@pytest.mark.parametrize("timezone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize(
    "expires",
    ["2030-01-01T12:00:00", "2030-01-01T12:00:00+00:00", "2030-01-01T20:00:00+08:00", None],
)
def test_a_task_expires_when_celery_says_so(redis_url, timezone, expires):
    """One without a zone is in UTC, wherever the worker is and whatever its ``timezone`` says."""
    app = Celery("parking", broker=redis_url, set_as_current=False)
    app.conf.concurrency_waiting = "handoff"
    app.conf.timezone = timezone
    message = replace(KEPT, headers={**KEPT.headers, "id": "1", "expires": expires})
    waiter = waiter_of(app, "1:1", ("global",), message, Ticket(1))
    app.close()
    celerys = maybe_make_aware(maybe_iso8601(expires), app.conf.timezone) if expires else None
    assert waiter.expires == (celerys and celerys.timestamp())
    assert waiter.expires in (None, NOON.timestamp())


def test_the_place_in_which_a_message_waited_before_is_not_kept_with_it(redis_url):
    """A script puts in the new one when it leaves."""
    app = Celery("parking", broker=redis_url, set_as_current=False)
    app.conf.concurrency_waiting = "handoff"
    parked = {"as": "1:1", "score": 1, "limits": ["global"]}
    message = replace(KEPT, headers={PARKED: parked, **KEPT.headers, "id": "1"})
    waiter = waiter_of(app, "1:2", ("global",), message, ticket_of(parked))
    app.close()
    assert PARKED.encode() not in waiter.message
    assert (waiter.parked_as, waiter.ticket) == ("1:1", 1)
