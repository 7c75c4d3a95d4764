"""Any unique beginning of an id, of four characters or more, means the task or the token."""

from __future__ import annotations

import pytest

from celery_concurrency.errors import AmbiguousId
from celery_concurrency.limiter.inspect.short_ids import CANDIDATES, whole_id, whole_token
from tests.limiter.test_bounded_work import commands
from tests.support.answers import assert_refused, mistake, out, refusal
from tests.support.waiting import hold, park, put_back

BASE = "/api/v1/concurrency"
TAGS = {"account": "a"}
FIRST = "5f1c2a7e-0000-4000-8000-000000000001"
SECOND = "5f1d2a7e-0000-4000-8000-000000000002"


@pytest.fixture
def two(limiter):
    """Two that wait; returns the token of who holds what they wait for."""
    token = hold(limiter, "77aa-holder", TAGS)
    park(limiter, FIRST, TAGS)
    park(limiter, SECOND, TAGS, retries=2)
    return token


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("5f1c", FIRST), (FIRST[:-1], FIRST), (FIRST, FIRST), ("5f1d", SECOND),
        ("77aa", "77aa-holder"), ("77aa-holder", "77aa-holder"),
        # Too short, or nobody's.
        ("5f1", "5f1"), ("77a", "77a"), ("5f1e", "5f1e"), ("f1c2", "f1c2"), ("5f1?", "5f1?"),
        ("", ""), ("....", "...."),
    ],
)  # fmt: skip
def test_whom_it_means(limiter, two, given, meant):
    assert whole_id(limiter.keyspace, given) == meant


def test_several_that_begin_so(limiter, redis, two):
    ids = [f"5f1c{number}" for number in range(CANDIDATES + 2)]
    for one in ids:
        park(limiter, one, TAGS)
    with pytest.raises(
        AmbiguousId, match="several ids begin with '5f1c': give more characters"
    ) as caught:
        whole_id(limiter.keyspace, "5f1c")
    assert caught.value.candidates == sorted([*ids, FIRST])[:CANDIDATES]
    # A whole id is meant, whoever else begins with it.
    park(limiter, "5f1c", TAGS)
    assert whole_id(limiter.keyspace, "5f1c") == "5f1c"


def test_a_task_that_runs_is_meant_by_its_whole_id_though_one_that_waits_begins_so(limiter, two):
    hold(limiter, "job-1", {})
    park(limiter, "job-10", TAGS)
    assert whole_id(limiter.keyspace, "job-1") == "job-1"
    assert whole_id(limiter.keyspace, "job-") == "job-10"


@pytest.mark.parametrize("leaves", ["cancel", "drain", "purge", "is handed room", "is deleted"])
def test_who_does_not_wait_any_more_is_not_found(limiter, redis, two, leaves):
    room = limiter.waiting_room
    if leaves == "cancel":
        room.cancel(FIRST)
        room.cancel(SECOND)
    elif leaves == "is handed room":
        limiter.config.update({"account_max": 9})
    elif leaves == "is deleted":
        redis.delete(f"concurrency:waiter:{FIRST}", f"concurrency:waiter:{SECOND} retry 2")
        assert whole_id(limiter.keyspace, "5f1c") == "5f1c"
        limiter.config.update({"account_max": 9})
    else:
        list(getattr(room, leaves)())
    assert redis.zcard("concurrency:names") == 0
    meant = FIRST if leaves == "is handed room" else "5f1c"  # its reservation has its name
    assert whole_id(limiter.keyspace, "5f1c") == meant


def test_it_costs_no_more_when_many_wait(limiter, redis, two):
    def cost():
        before = commands(redis)
        whole_id(limiter.keyspace, "5f1c")
        return commands(redis) - before

    few = cost()
    for number in range(500):
        park(limiter, f"{number:04}-other", {"account": "a"})
    assert cost() == few


def test_a_token(limiter, two):
    keyspace = limiter.keyspace
    assert whole_token(keyspace, two) == two
    assert whole_token(keyspace, "77aa") == whole_token(keyspace, two[:-2]) == two
    assert whole_token(keyspace, "nobody") == "nobody"
    other = hold(limiter, "77aa-holder-too", {})
    assert whole_token(keyspace, "77aa-holder") == two
    with pytest.raises(AmbiguousId) as caught:
        whole_token(keyspace, "77aa")
    assert caught.value.candidates == sorted([two, other])


# -- over HTTP


def test_why_over_http(client, two, limiter):
    found = client.get(f"{BASE}/waiting/5f1c").json["data"]
    assert (found["task_id"], found["position"]) == (FIRST, 1)
    assert client.get(f"{BASE}/tokens?task=77aa").json["data"]["tokens"][0]["token"] == two
    assert_refused(client.get(f"{BASE}/waiting/5f1e"), 404, "not_waiting")
    park(limiter, f"{FIRST}0", TAGS)
    answer = client.get(f"{BASE}/waiting/5f1c", headers={"Accept-Language": "en"})
    assert_refused(answer, 409, "ambiguous_id")
    assert answer.json["message"] == "Several ids begin like this: give more characters"
    assert [one["problem"] for one in answer.json["error"]["details"]] == [FIRST, f"{FIRST}0"]


def test_cancel_and_release_over_http(client, two, limiter, redis):
    park(limiter, f"{FIRST}0", TAGS)
    assert_refused(client.delete(f"{BASE}/waiting/5f1c"), 409, "ambiguous_id")
    assert client.delete(f"{BASE}/waiting/5f1d").json["data"] == {"cancelled": 1}
    assert [one["headers"]["id"] for one in put_back(redis)] == [SECOND]
    assert client.delete(f"{BASE}/tokens/77aa").json["data"]["token"] == two
    assert_refused(client.delete(f"{BASE}/tokens/77aa"), 404, "not_held")


# -- on the command line


def test_commands(here, two, limiter):
    assert out(here("waiting", "5f1c")).startswith(f"{FIRST} (publish) waits since")
    assert "77aa-holder does not wait: it runs" in refusal(here("waiting", "77aa"))
    park(limiter, f"{FIRST}0", TAGS)
    problem = f"several ids begin with '5f1c': give more characters. They are {FIRST}, {FIRST}0"
    assert problem in refusal(here("waiting", "5f1c"))
    done = here("cancel", "5f1c", "5f1d", "nope")
    assert (done.returncode, done.stdout) == (1, f"cancelled {SECOND}\n")
    assert (
        "not waiting (any more): nope; the command waiting lists who waits. " + problem
        in done.stderr
    )
    assert out(here("release", "77aa")) == f"released {two}: global account:a\n"
    mistake(here("cancel"))
