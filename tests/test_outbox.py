"""The outbox's sender: what is put there while it ends is sent too."""

from __future__ import annotations

from typing import Any

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
