"""The place of a message that waited: its record and its group say it, its headers once it leaves.

``scripts/lib/messages.lua`` puts it in. A message that an older version parked has it already.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.scripts.constants import DISCARD, MESSAGE_START, PARKED
from tests.support.floor import Floor
from tests.support.waiting import QUEUE


@pytest.fixture
def floor(limiter: Limiter, redis: Redis) -> Floor:
    return Floor(limiter, redis)


def release(floor: Floor, holder: str) -> None:
    floor.limiter.release(holder)


def cancel(floor: Floor, _: str) -> None:
    floor.room.cancel("task")


def cancel_limit(floor: Floor, _: str) -> None:
    list(floor.room.cancel_limit("account:a"))


def drain(floor: Floor, _: str) -> None:
    list(floor.room.drain())


def expire(floor: Floor, _: str) -> None:
    floor.redis.zadd("concurrency:expiring", {"task": 1})
    floor.sweep()


def replaced(floor: Floor, _: str) -> None:
    replacing(floor, "newer", 2)


def purge(floor: Floor, _: str) -> None:
    """A caller outside of tasks gets its message back."""
    list(floor.room.purge())


def replacing(floor: Floor, task: str, received: int) -> Ticket:
    denied = floor.ask(task, account="a")
    waiter = floor.waiter(denied, {"account": "a"})
    floor.room.park(replace(waiter, replaces="task", received=received))
    return denied.ticket


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("leaves", [release, cancel, cancel_limit, drain, expire, replaced, purge])
def test_a_message_has_its_place_once_whichever_way_it_leaves(
    floor: Floor, leaves: Callable[[Floor, str], None], older: bool
) -> None:
    holder = floor.hold(account="a")
    if leaves is purge:
        floor.queue = "concurrency:call:task"
    denied = floor.ask("task", account="a")
    waiter = floor.waiter(denied, {"account": "a"})
    if leaves is replaced:
        waiter = replace(waiter, replaces="task", received=1)
    assert floor.room.park(waiter) == "parked"
    place = {"as": denied.token, "score": denied.ticket.number, "limits": ["global", "account:a"]}
    if leaves is replaced:
        place["received"] = 1
    if older:
        put_in(floor, "task", place)
    assert (PARKED in floor.redis.get("concurrency:waiter:task")) == older
    leaves(floor, holder)
    [text] = floor.redis.lrange(floor.queue or QUEUE, 0, -1)
    assert text.count(PARKED) == 1
    headers = json.loads(text)["headers"]
    assert headers[PARKED] == place
    assert bool(headers.get(DISCARD)) == (leaves not in (release, drain, purge))


def put_in(floor: Floor, task: str, place: dict[str, object]) -> None:
    """Make a waiter's record that of an older version, which put the place in as it parked."""
    line, _, text = floor.redis.get(f"concurrency:waiter:{task}").partition("\n")
    facts = json.dumps({**json.loads(line), "run": place["as"]})
    header = f'"{PARKED}": {json.dumps(place)}, '
    text = text.replace(MESSAGE_START, MESSAGE_START + header, 1)
    floor.redis.set(f"concurrency:waiter:{task}", f"{facts}\n{text}")


def test_one_that_waits_again_keeps_the_run_that_parked_it_first(floor: Floor) -> None:
    holder = floor.hold(account="a")
    first = floor.wait("task", account="a")
    floor.limiter.release(holder)
    [message] = floor.back()
    floor.lapse(*floor.holders("account:a"))
    floor.sweep()
    other = floor.hold(account="a")
    denied = floor.deliver(message)
    assert floor.room.park(floor.waiter(denied, {"account": "a"})) == "parked"
    floor.limiter.release(other)
    [again] = floor.back()
    assert again[PARKED] == message[PARKED]
    assert again[PARKED]["as"] == first.run


def test_one_that_takes_the_place_of_another_says_so(floor: Floor) -> None:
    holder = floor.hold(account="a")
    first = replacing(floor, "task", 1)
    replacing(floor, "newer", 2)
    [discarded] = floor.back()
    assert (discarded["task"], discarded["score"]) == ("task", first.number)
    floor.limiter.release(holder)
    [message] = floor.back()
    assert (message["task"], message["score"]) == ("newer", first.number)


def test_one_that_came_too_late_to_wait_has_its_place(floor: Floor) -> None:
    floor.hold(account="a")
    replacing(floor, "newer", 2)
    ticket = replacing(floor, "older", 1)
    [discarded] = floor.back()
    assert discarded[PARKED]["score"] == ticket.number
    assert discarded[PARKED]["received"] == 1
