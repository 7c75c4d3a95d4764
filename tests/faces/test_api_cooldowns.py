"""Cool-downs and rates over HTTP."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from celery_concurrency.api import create_app
from tests.support.answers import all_keys, assert_refused

BASE = "/api/v1/concurrency"
URL = f"{BASE}/cooldowns"
CONFIG = f"{BASE}/config"
DEFAULT_RATES = {"account:*": [{"max": 1, "per": 30}, {"max": 15, "per": 86_400}]}


def test_set_read_and_lift(client, redis):
    body = {"limit": "account:a", "seconds": 600, "reason": "429"}
    answer = client.post(URL, json=body, headers={"X-Operator": "ann"})
    assert answer.status_code == 200
    data = answer.json["data"]
    now = redis.time()[0]
    assert data["until"] == pytest.approx(now + 600, abs=30)
    assert data["since"] == pytest.approx(now, abs=30)
    assert 570 < data["seconds"] <= 600
    assert (data["limit"], data["reason"], data["by"]) == ("account:a", "429", "ann")
    assert answer.json["message"] == "已进入冷却，期间不再放行任务；正在运行的不受影响"
    listed = client.get(URL).json["data"]
    assert listed["total"] == 1
    assert listed["cooldowns"][0]["until"] == data["until"]
    assert client.get(f"{BASE}/usage").json["data"]["accounts"]["a"]["cooldown"] == {
        "until": data["until"], "reason": "429", "by": "ann", "since": data["since"],
    }  # fmt: skip
    answer = client.delete(f"{URL}?limit=account:a", headers={"Accept-Language": "en"})
    assert answer.status_code == 200
    assert answer.json["data"]["until"] == data["until"]
    assert answer.json["message"] == "The cool-down was lifted; tasks go on"
    assert client.get(URL).json["data"] == {"cooldowns": [], "total": 0}


def test_the_longer_stands_and_is_answered(client):
    client.post(URL, json={"limit": "global", "seconds": 600, "reason": "long"})
    answer = client.post(URL, json={"limit": "global", "seconds": 1.5, "reason": "short"})
    assert answer.json["data"]["reason"] == "long"
    assert answer.json["data"]["by"] == ""


def test_what_does_not_cool_down_can_not_be_lifted(client):
    assert_refused(client.delete(f"{URL}?limit=account:a"), 404, "not_cooling")
    [detail] = assert_refused(client.delete(URL), 400, "invalid_query")
    assert detail["field"] == "limit"
    [detail] = assert_refused(client.delete(f"{URL}?limit=a"), 400, "invalid_query")
    assert detail["field"] == "limit"


def test_one_of_a_dimension_that_was_taken_out_can_be_lifted(client, limiter):
    limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    client.post(URL, json={"limit": "tenant:acme", "seconds": 60})
    limiter.config.update({"dimensions": {"tenant": None}})
    assert client.get(URL).json["data"]["total"] == 1
    assert client.delete(f"{URL}?limit=tenant:acme").status_code == 200


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"limit": "account:*"}, "limit", "write 'global' or '<dimension>:<name>'"),
        ({"limit": "acount:a"}, "limit", "account, platform, task_type"),
        ({"limit": 1}, "limit", "string"),
        ({"seconds": 0}, "seconds", "greater than 0"),
        ({"seconds": 604_801}, "seconds", "less than or equal to 604800"),
        ({"seconds": True}, "seconds", "number"),
        ({"seconds": "60"}, "seconds", "number"),
        ({"seconds": None}, "seconds", "number"),
        ({"reason": "x" * 201}, "reason", "at most 200 characters"),
        ({"by": "eve"}, "by", "no such field"),
    ],
)
@pytest.mark.usefixtures("english")
def test_what_is_refused_names_the_field_and_the_bound(client, redis_url, change, field, said):
    client.get(CONFIG)
    before = all_keys(redis_url)
    answer = client.post(URL, json={"limit": "account:a", "seconds": 60, **change})
    details = assert_refused(answer, 400, "invalid_cooldown")
    [detail] = details
    assert detail["field"] == field
    assert said in detail["problem"]
    assert all_keys(redis_url) == before


def test_what_is_left_out_or_not_to_be_read(client):
    details = assert_refused(client.post(URL, json={}), 400, "invalid_cooldown")
    assert [one["field"] for one in details] == ["limit", "seconds"]
    assert_refused(client.post(URL, json=[]), 400, "invalid_cooldown")
    assert_refused(client.post(URL, data="{", content_type="application/json"), 400, "invalid_json")
    assert_refused(client.post(URL, data="x"), 415, "unsupported_media_type")
    body = {"limit": "account:a", "seconds": 60, "reason": "a\nb"}
    [detail] = assert_refused(client.post(URL, json=body), 400, "unprintable")
    assert detail["field"] == "reason"
    body = {"limit": "account:a", "seconds": 60}
    answer = client.post(URL, json=body, headers={"X-Operator": "x" * 201})
    assert_refused(answer, 400, "invalid_operator")
    assert client.get(URL).json["data"]["total"] == 0


def test_while_redis_is_away():
    away = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    client = create_app(away).test_client()
    body = {"limit": "account:a", "seconds": 60}
    for answer in (
        client.get(URL), client.post(URL, json=body), client.delete(f"{URL}?limit=account:a"),
    ):  # fmt: skip
        assert_refused(answer, 503, "unavailable")


def test_who_may_only_read_sets_none(celery_app):
    from celery_concurrency.api.access import bearer

    client = create_app(celery_app, bearer("all", "read")).test_client()
    headers = {"Authorization": "Bearer read"}
    assert client.get(URL, headers=headers).status_code == 200
    body = {"limit": "account:a", "seconds": 60}
    assert_refused(client.post(URL, json=body, headers=headers), 403, "read_only")
    assert_refused(client.delete(f"{URL}?limit=account:a", headers=headers), 403, "read_only")


# -- rates


def test_rates_are_set_merged_and_taken_out(client):
    assert client.put(CONFIG, json={"rates": DEFAULT_RATES}).json["data"]["rates"] == DEFAULT_RATES
    more = {"platform:xiaohongshu": [{"max": 60, "per": 60}]}
    data = client.put(CONFIG, json={"rates": more}).json["data"]
    assert data["rates"] == {**DEFAULT_RATES, **more}
    data = client.put(CONFIG, json={"rates": {"account:*": [{"max": 2, "per": 1}]}}).json["data"]
    assert data["rates"]["account:*"] == [{"max": 2, "per": 1}]
    back = {"account:*": None, "platform:xiaohongshu": None}
    assert "rates" not in client.put(CONFIG, json={"rates": back}).json["data"]


@pytest.mark.parametrize(
    ("rates", "field", "said"),
    [
        ({"account:*": [{"max": 0, "per": 1}]}, "rates.account:*.0.max", "or equal to 1"),
        ({"account:*": [{"max": 10_001, "per": 1}]}, "rates.account:*.0.max", "10000"),
        ({"account:*": [{"max": 1, "per": 604_801}]}, "rates.account:*.0.per", "604800"),
        ({"account:*": [{"max": True, "per": 1}]}, "rates.account:*.0.max", "integer"),
        ({"account:*": [{"max": 1}]}, "rates.account:*.0.per", "required"),
        ({"account:*": [{"max": 1, "per": 1}] * 5}, "rates.account:*", "at most 4 items"),
        ({"account:*": []}, "rates.account:*", "at least 1 item"),
        ({"account:*": {"max": 1, "per": 1}}, "rates.account:*", "it looks like"),
        ({"acount:*": [{"max": 1, "per": 1}]}, "rates", "'<dimension>:*'"),
        (None, "rates", "can't be null"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("english")
def test_rates_that_can_not_be(client, rates, field, said):
    details = assert_refused(client.put(CONFIG, json={"rates": rates}), 400, "invalid_config")
    assert details[0]["field"] == field
    assert said in details[0]["problem"]


def test_rates_have_a_history_and_come_back(client, redis):
    first = client.put(CONFIG, json={"rates": DEFAULT_RATES}, headers={"X-Operator": "ann"})
    version = int(first.headers["ETag"].strip('"'))
    client.put(CONFIG, json={"rates": {"account:*": [{"max": 9, "per": 9}]}})
    newest, before, *_ = client.get(f"{BASE}/config/history").json["data"]["versions"]
    assert newest["changed"] == [
        {
            "field": "rates.account:*",
            "before": DEFAULT_RATES["account:*"],
            "after": [{"max": 9, "per": 9}],
        }
    ]
    assert before["operator"] == "ann"
    assert redis.hgetall("concurrency:config:rates") == {"account:*": "9/9"}
    answer = client.post(f"{BASE}/config/rollback", json={"version": version})
    assert answer.json["data"]["rates"] == DEFAULT_RATES
    assert redis.hgetall("concurrency:config:rates") == {"account:*": "1/30 15/86400"}
    assert "rates" not in client.post(f"{BASE}/reset").json["data"]
    assert not redis.exists("concurrency:config:rates")


def test_rates_written_by_hand(client, limiter, redis):
    client.get(CONFIG)
    redis.set("concurrency:config", json.dumps({"rates": DEFAULT_RATES}))
    assert client.get(CONFIG).json["data"]["rates"] == DEFAULT_RATES
    assert redis.hgetall("concurrency:config:rates") == {"account:*": "1/30 15/86400"}
    redis.set("concurrency:config", '{"rates": {"account:*": [{"max": 0, "per": 1}]}}')
    assert client.get(CONFIG).json["data"]["rates"] == DEFAULT_RATES
    problem = client.get(f"{BASE}/usage").json["data"]["config_problem"]
    assert "rates.account:*.0.max" in problem
