"""The outbox's sender: what is put there while it ends is sent too, and nobody waits for it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import state as worker_state
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.housekeeping import Housekeeping
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.outbox import Sender
from tests.support.tracing import request_of
from tests.support.workers import settle, wait_for

KEPT = TaskMessage(
    body=b"[]",
    content_type="application/json",
    content_encoding="utf-8",
    compression=None,
    headers={"id": "1", "task": "t"},
    properties={},
    expiration=None,
    exchange="",
    routing_key="outbox",
)


class Room:
    """An outbox in memory; its messages are empty, so that nothing is published."""

    def __init__(self) -> None:
        self.messages = [1]
        self.claims = 0
        self.when_empty: Any = lambda: None

    def claim(self) -> list[tuple[int, bytes]]:
        self.claims += 1
        claimed, self.messages = self.messages, []
        if not claimed:
            self.when_empty()
        return [(number, b"") for number in claimed]

    def confirm(self, number: int) -> None:
        pass


@pytest.fixture
def app() -> Any:
    app = Celery("outbox", broker="memory://", set_as_current=False)
    yield app
    app.close()


def sender_of(app: Any, room: Any) -> Sender:
    return Sender(lambda: app, lambda: room)


def send(sender: Sender) -> None:
    """Send, and wait for it."""
    sender.send()
    sender.finish(60)


def test_what_comes_while_another_call_is_about_to_end_is_sent(app: Any) -> None:
    """Else it would lie there until a sweep looks."""
    room = Room()
    sender = sender_of(app, room)

    def one_more() -> None:
        room.when_empty = lambda: None
        room.messages = [2]
        sender.send()  # as another thread would: the first one is still at it

    room.when_empty = one_more
    send(sender)
    assert room.messages == []
    assert room.claims == 4


def test_a_broker_that_is_away_is_no_fault_of_a_message(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No message is claimed in vain, and it takes no time for each of them."""
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    app.conf.broker_connection_timeout = 0.1
    room = Room()
    send(sender_of(app, room))
    assert room.claims == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the broker is away, so messages of the outbox are sent later" in caplog.text


def test_a_broker_that_goes_away_is_not_asked_for_ever(app: Any) -> None:
    room = Room()
    sender = sender_of(app, room)

    def away(number: int) -> None:
        sender.send()
        raise OSError("away")

    room.confirm = away  # type: ignore[method-assign]
    send(sender)
    assert room.claims == 2


def test_a_time_limit_that_strikes_at_the_start_stops_no_later_message(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    sender = sender_of(app, room)

    def struck(*_: object) -> None:
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", struck)
        with pytest.raises(SoftTimeLimitExceeded):
            sender.send()
        sender.finish(0)
    send(sender)
    assert room.messages == []


def test_no_thread_to_send_in_fails_no_release(
    app: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tokens were given back by then; what is in the outbox somebody else sends."""
    room = Room()
    sender = sender_of(app, room)

    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        sender.send()
    assert "messages of the outbox are sent later: can't start new thread" in caplog.text
    send(sender)
    assert room.messages == []


def test_a_message_that_can_not_be_sent_from_here_holds_up_no_other(app: Any) -> None:
    """Another worker may know its compression."""
    unknown = replace(KEPT, compression="application/x-unknown")
    batches = [[(1, KEPT.to_json()), (2, unknown.to_json()), (3, KEPT.to_json())], []]
    confirmed: list[int] = []
    room = Room()
    room.claim = lambda: batches.pop(0)  # type: ignore[method-assign]
    room.confirm = confirmed.append  # type: ignore[method-assign]
    send(sender_of(app, room))
    assert confirmed == [1, 3]
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("outbox")
        assert [queue.get(timeout=60).headers["id"] for _ in range(2)] == ["1", "1"]
        queue.close()


def test_a_broker_that_hangs_stops_no_beat(
    app: Any, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that lasts for five seconds is there for longer than that."""
    sending, goes_on = threading.Event(), threading.Event()

    def hangs(*_: object, **__: object) -> None:
        sending.set()
        goes_on.wait(150)

    monkeypatch.setattr(TaskMessage, "publish", hangs)
    client = connect(redis_url)
    settle(redis)
    sender = Sender(lambda: app, lambda: limiter.waiting_room)
    limiter = Limiter(client, deliver=sender.send)
    limiter.try_acquire("task:1", {"account": "a"}, lease=5)
    first_end = redis.zscore("concurrency:leases", "task:1")
    request = request_of("task:1")
    worker_state.active_requests.add(request)
    ticker = Housekeeping(limiter, Heartbeat(limiter, 5, processes=False))
    ticker.start()
    try:
        redis.set("concurrency:outbox:1", KEPT.to_json())
        redis.zadd("concurrency:outbox", {"1": 0})
        assert sending.wait(60)
        wait_for(
            lambda: redis.zscore("concurrency:leases", "task:1") > first_end + 5,
            what="a beat after its first lease",
        )
        assert redis.zcard("concurrency:outbox") == 1
        goes_on.set()
        wait_for(lambda: redis.zcard("concurrency:outbox") == 0, what="sent in the end")
    finally:
        goes_on.set()
        ticker.stop()
        worker_state.active_requests.discard(request)
        client.close()
