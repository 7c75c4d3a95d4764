"""The outbox's sender: what is put there while it ends is sent too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from celery import Celery

from celery_concurrency.message import KeptMessage
from celery_concurrency.outbox import Sender


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


def test_what_comes_while_another_call_is_about_to_end_is_sent() -> None:
    """Else it would lie there until a sweep looks."""
    room, sender = Room(), Sender(None)

    def one_more() -> None:
        room.when_empty = lambda: None
        room.messages = [2]
        sender.send(room)  # as another thread would: the first one is still at it

    room.when_empty = one_more
    sender.send(room)
    assert room.messages == []
    assert room.claims == 4


def test_a_broker_that_is_away_is_not_asked_for_ever() -> None:
    room, sender = Room(), Sender(None)

    def away(number: int) -> None:
        sender.send(room)
        raise OSError("away")

    room.confirm = away  # type: ignore[method-assign]
    sender.send(room)
    assert room.claims == 1


def test_a_message_that_can_not_be_sent_from_here_holds_up_no_other() -> None:
    """Another worker may know its compression."""
    app = Celery("outbox", broker="memory://", set_as_current=False)
    kept = KeptMessage(
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
    unknown = replace(kept, compression="application/x-unknown")
    batches = [[(1, kept.to_json()), (2, unknown.to_json()), (3, kept.to_json())], []]
    confirmed: list[int] = []
    room = Room()
    room.claim = lambda: batches.pop(0)  # type: ignore[method-assign]
    room.confirm = confirmed.append  # type: ignore[method-assign]
    Sender(app).send(room)
    assert confirmed == [1, 3]
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("outbox")
        assert [queue.get(timeout=5).headers["id"] for _ in range(2)] == ["1", "1"]
        queue.close()
    app.close()
