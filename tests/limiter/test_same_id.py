"""Two messages with one task id: copies merge, others wait by themselves."""

from __future__ import annotations

import json

import pytest

from celery_concurrency.limiter.outcomes import Denied
from tests.support.waiting import hold, put_back, waiter_of, waiters

ACCOUNT = {"account": "a"}


def arrive(limiter, *, task="publish", body="one", retries=0, door=False):
    """A message with the id "t" has no room; return what becomes of it."""
    arrive.number += 1
    denied = limiter.try_acquire(f"t:{arrive.number}", ACCOUNT)
    assert isinstance(denied, Denied)
    headers = {"task": task, "id": "t", "retries": retries, "asked": arrive.number}
    message = json.dumps({"headers": headers, "body": body}).encode()
    waiter = waiter_of(denied, "t", message, retries=retries)
    if door:
        return limiter.join(waiter, 0, {}) is not None
    return limiter.waiting_room.park(waiter)


arrive.number = 0


@pytest.mark.parametrize("other", [{"body": "two"}, {"task": "upload"}])
@pytest.mark.parametrize("door", [False, True])
def test_other_work_with_the_same_id_waits_by_itself(limiter, redis, other, door):
    token = hold(limiter, "h", ACCOUNT)
    assert arrive(limiter) == "parked"
    assert arrive(limiter, **other, door=door) in ("parked", True)
    assert arrive(limiter, **other) == "merged"
    assert arrive(limiter) == "merged"
    assert len(waiters(redis)) == 2
    limiter.release(token)
    [first] = put_back(redis)
    assert first["body"] == "one"
    [reserved] = redis.zrange("concurrency:reservations", 0, -1)
    limiter.release(reserved)
    [second] = put_back(redis)
    assert (second["headers"]["task"], second["body"]) == (
        other.get("task", "publish"),
        other.get("body", "one"),
    )
    assert not redis.exists("concurrency:retried:t")


@pytest.mark.parametrize("retries", [0, 1])
def test_its_task_is_cancelled_with_all_of_them(limiter, redis, retries):
    hold(limiter, "h", ACCOUNT)
    for body in ("one", "two", "three"):
        assert arrive(limiter, body=body, retries=retries) == "parked"
    assert limiter.waiting_room.cancel("t")
    assert sorted(message["body"] for message in put_back(redis)) == ["one", "three", "two"]
    assert not waiters(redis)
    assert not redis.exists("concurrency:retried:t", "concurrency:names")


def test_it_is_found_by_its_tasks_id(client, limiter):
    hold(limiter, "h", ACCOUNT)
    arrive(limiter)
    arrive(limiter, body="two")
    data = client.get("/api/v1/concurrency/waiting").get_json()["data"]
    assert [one["task_id"] for one in data["waiting"]] == ["t", "t"]
    assert client.get("/api/v1/concurrency/waiting/t").status_code == 200


def test_a_call_that_is_repeated_finds_it_under_its_own_name(limiter, redis):
    """Also when the one that had its name first has left, and if its process is killed."""
    hold(limiter, "h", ACCOUNT)
    arrive(limiter)
    denied = limiter.try_acquire("t:other", ACCOUNT)
    message = json.dumps({"headers": {"task": "publish", "id": "t"}, "body": "two"}).encode()
    waiter = waiter_of(denied, "t", message)
    assert limiter.waiting_room.park(waiter) == "parked"
    redis.delete("concurrency:waiter:t")
    assert limiter.waiting_room.park(waiter) == "again"
    assert limiter.waiting_room.rescue("t:other", "t") is True
    assert len(waiters(redis)) == 1


def test_a_copy_whose_process_was_killed_goes_back_to_the_broker(limiter, redis):
    """Whether what waits under its name is a copy of it is not known then."""
    hold(limiter, "h", ACCOUNT)
    arrive(limiter)
    assert limiter.waiting_room.rescue("t:killed", "t") is False
