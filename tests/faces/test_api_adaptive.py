"""Adaptive limits, refusals and probes over HTTP."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_concurrency.api import create_app
from celery_concurrency.api.access import bearer
from tests.support import scenes
from tests.support.answers import all_keys, assert_refused
from tests.support.waiting import hold, park

BASE = "/api/v1/concurrency"
URL = f"{BASE}/adaptive"
HISTORY = f"{URL}/history"
LIMIT = "platform:bilibili"
ENTRY = {"min": 1, "max": 8, "decrease": 0.5, "every": 30}


@pytest.fixture
def probe(limiter):
    """The run that goes first in account:tried; account:rests cools down; the platform fell."""
    return scenes.refused(limiter)


def test_each_is_listed_with_what_is_in_force(client, limiter, probe):
    data = client.get(URL).json["data"]
    [moved, *others] = data["limits"]
    assert data["total"] == len(data["limits"])
    at = limiter.adaptive.moves(LIMIT)[-1].at
    assert moved == {
        "limit": LIMIT, "entry": ENTRY, "current": 4, "in_force": 4,
        "moved": pytest.approx(at, abs=0.01),
    }  # fmt: skip
    assert others == []  # a wildcard's names are there once they have moved
    limiter.config.update({"platform_max": {"bilibili": 3}})
    assert client.get(URL).json["data"]["limits"][0]["in_force"] == 3
    limiter.config.pause(LIMIT)
    assert client.get(URL).json["data"]["limits"][0]["in_force"] == -1


def test_no_more_are_listed_than_there_is_room_for(client, limiter, monkeypatch):
    monkeypatch.setattr("celery_concurrency.limiter.adaptive.MAX_LISTED", 2)
    limiter.config.update({"adaptive": {f"platform:{n}": ENTRY for n in range(3)}})
    data = client.get(URL).json["data"]
    assert (len(data["limits"]), data["total"]) == (2, 3)


def test_a_day_of_it(client, limiter, probe, redis):
    limiter.stats.snapshot()
    begin = redis.time()[0]
    data = client.get(f"{HISTORY}?limit={LIMIT}").json["data"]
    assert data["limit"]["current"] == 4
    [move] = data["moves"]
    assert (move["before"], move["after"], move["reason"]) == (8, 4, "429")
    [sample] = data["samples"]
    assert (sample["current"], sample["running"]) == (4, 3)
    assert data["resolution"] == 300
    assert len(data["refusals"]) == 86_400 // 300 + 1
    assert sum(one["count"] for one in data["refusals"]) == 2
    last = data["refusals"][-1]["at"]
    assert begin - 300 < last <= redis.time()[0]


@pytest.mark.parametrize(
    ("limit", "count"), [("global", 2), ("account:rests", None), ("task_type:publish", 0)]
)
def test_refusals_are_given_where_they_are_counted(client, limiter, probe, limit, count):
    limiter.config.update({"adaptive": {"global": ENTRY, "account:*": ENTRY}})
    refusals = client.get(f"{HISTORY}?limit={limit}").json["data"]["refusals"]
    assert (refusals and sum(one["count"] for one in refusals)) == (count if refusals else None)
    assert (refusals is None) == (count is None)


def test_reset_puts_it_back(client, limiter, probe):
    headers = {"X-Operator": "ann", "Accept-Language": "en"}
    answer = client.delete(f"{URL}?limit={LIMIT}", headers=headers)
    assert answer.status_code == 200
    assert (answer.json["data"]["current"], answer.json["data"]["in_force"]) == (8, 8)
    assert answer.json["message"] == "The adaptive limit is back at its maximum"
    assert limiter.adaptive.moves(LIMIT)[-1].reason == "reset by ann"
    # Again it changes nothing, and says so.
    answer = client.delete(f"{URL}?limit={LIMIT}")
    assert answer.json["data"]["current"] == 8
    assert answer.json["message"] == "自适应上限本来就在最大值，没有变动"
    assert len(limiter.adaptive.moves(LIMIT)) == 2


@pytest.mark.parametrize(("method", "url"), [("GET", HISTORY), ("DELETE", URL)])
def test_what_is_not_adaptive_says_how_it_is_made_so(client, redis_url, method, url):
    client.get(URL)
    before = all_keys(redis_url)
    answer = client.open(f"{url}?limit=platform:*", method=method)
    [detail] = assert_refused(answer, 404, "not_adaptive")
    assert detail["problem"] == "platform:* 是通配：请写出一个具体的限制"
    for limit in ("platform:douyin", "tenant:acme"):
        answer = client.open(f"{url}?limit={limit}", method=method)
        [detail] = assert_refused(answer, 404, "not_adaptive")
        assert detail["field"] == "limit"
        assert f'{{"adaptive": {{"{limit}": {{"min": 1, "max": 10}}}}}}' in detail["problem"]
    for query in ("", "?limit=", "?limit=douyin"):
        [detail] = assert_refused(client.open(url + query, method=method), 400, "invalid_query")
        assert detail["field"] == "limit"
    assert all_keys(redis_url) == before


def test_while_redis_is_away():
    away = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    client = create_app(away).test_client()
    for answer in (
        client.get(URL), client.get(f"{HISTORY}?limit={LIMIT}"),
        client.delete(f"{URL}?limit={LIMIT}"),
    ):  # fmt: skip
        assert_refused(answer, 503, "unavailable")


def test_who_may_only_read_resets_none(celery_app, probe):
    client = create_app(celery_app, bearer("all", "read")).test_client()
    headers = {"Authorization": "Bearer read"}
    assert client.get(URL, headers=headers).status_code == 200
    assert_refused(client.delete(f"{URL}?limit={LIMIT}", headers=headers), 403, "read_only")


# -- beside the others


def test_usage_says_what_adapts_and_who_is_tried(client, limiter, probe):
    usage = client.get(f"{BASE}/usage").json["data"]
    bilibili = usage["platforms"]["bilibili"]
    assert bilibili["adaptive"] == {"current": 4, "min": 1, "max": 8, "in_force": 4}
    assert (bilibili["current"], bilibili["max"]) == (3, 0)
    observed = usage["task_types"]["publish"]["adaptive"]
    assert (observed["mode"], observed["in_force"]) == ("observe", 0)
    assert "adaptive" not in usage["global"]
    rests, tried = usage["accounts"]["rests"]["cooldown"], usage["accounts"]["tried"]["cooldown"]
    assert (rests["refused"], rests.get("probe"), rests["by"]) == (True, None, "refused-rests")
    assert (tried["refused"], tried["probe"]) == (True, probe)
    limiter.release(probe, succeeded=True)
    accounts = client.get(f"{BASE}/usage").json["data"]["accounts"]
    assert "cooldown" not in accounts.get("tried", {})


def test_an_account_is_listed_while_it_stands_below_its_highest(client, limiter):
    limiter.config.update({"account_max": 0, "adaptive": {"account:*": ENTRY}})
    token = hold(limiter, "refused", {"account": "low"})
    limiter.refuse(token, ("global", "account:low"), "account:low", 0)
    limiter.release(token)
    assert client.get(f"{BASE}/usage").json["data"]["accounts"].keys() == {"low"}
    limiter.adaptive.reset("account:low")
    assert client.get(f"{BASE}/usage").json["data"]["accounts"] == {}


def test_cooldowns_say_who_goes_first(client, probe):
    data = client.get(f"{BASE}/cooldowns").json["data"]
    assert data["total"] == 2
    rests, tried = data["cooldowns"]
    assert (rests["limit"], rests["refused"], rests["probe"]) == ("account:rests", True, None)
    assert (tried["limit"], tried["seconds"], tried["probe"]) == ("account:tried", 0, probe)
    assert client.delete(f"{BASE}/cooldowns?limit=account:tried").json["data"]["probe"] == probe
    assert client.get(f"{BASE}/cooldowns").json["data"]["total"] == 1


def test_who_waits_is_told_that_one_goes_first_and_which(client, limiter, probe):
    found = client.get(f"{BASE}/waiting/wait-probe").json["data"]
    assert found["blocked_by"] == {
        "reason": "probe", "limit": "account:tried", "current": 1, "max": 3,
        "text": "account:tried (one run goes first, after a refusal)",
    }  # fmt: skip
    by_limit = {one["limit"]: one for one in found["limits"]}
    first = by_limit["account:tried"]["probe"]
    assert (first["token"], first["task_id"], first["worker"]) == (probe, "tries", "w1@h")
    assert first["since"] == pytest.approx(found["since"], abs=60)
    assert by_limit["account:tried"]["full"]
    assert "probe" not in by_limit[LIMIT]
    limiter.release(probe)  # it failed: nobody is tried, and the next goes first
    assert client.get(f"{BASE}/waiting/wait-probe").json["data"]["handed_over"]


def test_who_waits_for_an_adaptive_limit_is_told_what_it_allows_now(client, limiter, probe):
    hold(limiter, "last", {"platform": "bilibili"})
    park(limiter, "waits", {"platform": "bilibili"})
    found = client.get(f"{BASE}/waiting/waits").json["data"]
    blocked = found["blocked_by"]
    assert (blocked["reason"], blocked["current"], blocked["max"]) == ("full", 4, 4)
    state = found["limits"][-1]
    assert (state["max"], state["adaptive"]["in_force"]) == (0, 4)
    assert len(state["holders"]) == 4
