"""The configuration's memory over HTTP: versions, who and when, and the way back."""

from __future__ import annotations

import pytest
from celery import Celery
from flask import Flask

from celery_concurrency.api import create_blueprint
from celery_concurrency.limiter.config.schema import Config
from tests.support.answers import all_keys, assert_refused

BASE = "/api/v1/concurrency"
CONFIG = f"{BASE}/config"
HISTORY = f"{CONFIG}/history"
ROLLBACK = f"{CONFIG}/rollback"


def versions(client):
    return client.get(HISTORY).json["data"]["versions"]


def test_each_answer_with_the_configuration_has_its_version(client):
    assert client.get(CONFIG).headers["ETag"] == '"1"'
    assert client.put(CONFIG, json={"global_max": 2}).headers["ETag"] == '"2"'
    assert client.get(CONFIG).headers["ETag"] == '"2"'
    assert client.post(f"{BASE}/reset").headers["ETag"] == '"3"'
    assert client.post(ROLLBACK, json={"version": 2}).headers["ETag"] == '"4"'
    assert client.post(ROLLBACK, json={"version": 2}).headers["ETag"] == '"4"'
    assert [one["version"] for one in versions(client)] == [4, 3, 2, 1]


def test_the_history_says_what_a_reset_would_put_in_force(client):
    client.put(CONFIG, json={"global_max": 2})
    assert client.get(HISTORY).json["data"]["defaults"] == Config().to_dict()


def test_a_rollback_to_the_same_says_so(client):
    client.put(CONFIG, json={"global_max": 2})
    english = {"Accept-Language": "en"}
    said = [
        client.post(ROLLBACK, json={"version": version}, headers=english).json["message"]
        for version in (1, 1)
    ]
    assert said == [
        "The earlier concurrency configuration is in force again",
        "That version is already in force: nothing was changed",
    ]


CHANGES = {
    "PUT": lambda client, **headers: client.put(CONFIG, json={"global_max": 9}, headers=headers),
    "reset": lambda client, **headers: client.post(f"{BASE}/reset", headers=headers),
    "rollback": lambda client, **headers: client.post(
        ROLLBACK, json={"version": 1}, headers=headers
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("match", ['"1"', '"3"', 'W/"2"', '"nonsense"', '""', '"²"', "", ","])
@pytest.mark.usefixtures("english")
def test_a_lost_race_changes_nothing(client, redis_url, change, match):
    client.put(CONFIG, json={"global_max": 2})
    before = all_keys(redis_url)
    response = change(client, **{"If-Match": match})
    [detail] = assert_refused(response, 412, "precondition_failed")
    assert detail == {
        "field": "If-Match",
        "problem": "the configuration is at version 2; read it, then decide again",
    }
    assert response.headers["ETag"] == '"2"'
    assert all_keys(redis_url) == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("match", ['"2"', "2", '"1", "2"', "*"])
def test_who_saw_this_version_may_change_it(client, change, match):
    client.put(CONFIG, json={"global_max": 2})
    response = change(client, **{"If-Match": match})
    assert (response.status_code, response.headers["ETag"]) == (200, '"3"')


def test_the_history_says_who_when_and_what(client, redis):
    client.put(CONFIG, json={"global_max": 2}, headers={"X-Operator": "alice"})
    client.post(f"{BASE}/reset", headers={"X-Operator": "张三".encode().decode("latin-1")})
    client.post(ROLLBACK, json={"version": 2})
    redis.set("concurrency:config", '{"global_max": 3}')
    found = versions(client)
    assert [(one["source"], one["operator"]) for one in found] == [
        ("hand-written", None),
        ("rollback", None),
        ("reset", "张三"),
        ("api", "alice"),
        ("default", None),
    ]
    assert found[3] == {
        "version": 2,
        "at": found[3]["at"],
        "operator": "alice",
        "source": "api",
        "problem": None,
        "config": {**Config().to_dict(), "global_max": 2},
        "changed": [{"field": "global_max", "before": 0, "after": 2}],
        "changed_total": 1,
    }
    assert abs(found[0]["at"] - redis.time()[0]) < 60
    assert client.get(CONFIG).json["data"]["global_max"] == 3


def test_rollback_brings_an_earlier_configuration_back(client):
    client.put(CONFIG, json={"global_max": 2, "platform_max": {"x": 1}, "paused": ["global"]})
    wanted = client.get(CONFIG).json["data"]
    client.post(f"{BASE}/reset")
    response = client.post(ROLLBACK, json={"version": 2}, headers={"Accept-Language": "en"})
    assert response.json == {
        "success": True,
        "data": wanted,
        "message": "The earlier concurrency configuration is in force again",
    }
    assert client.get(CONFIG).json["data"] == wanted


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "version"),
        ({"version": "1"}, "version"),
        ({"version": 1.0}, "version"),
        ({"version": True}, "version"),
        ({"version": None}, "version"),
        ({"version": -1}, "version"),
        ({"version": 2**63}, "version"),
        ({"version": 1, "more": 1}, "more"),
        ([1], ""),
        (1, ""),
    ],
)
def test_a_bad_rollback_is_refused(client, redis_url, body, field):
    client.put(CONFIG, json={"global_max": 2})
    before = all_keys(redis_url)
    [detail] = assert_refused(client.post(ROLLBACK, json=body), 400, "invalid_body")
    assert detail["field"] == field
    assert all_keys(redis_url) == before
    assert_refused(client.post(ROLLBACK, data="version=1"), 415, "unsupported_media_type")


@pytest.mark.parametrize("version", [0, 3, 2**63 - 1])
def test_there_is_no_such_version(client, redis_url, version):
    client.put(CONFIG, json={"global_max": 2})
    before = all_keys(redis_url)
    response = client.post(ROLLBACK, json={"version": version})
    [detail] = assert_refused(response, 404, "unknown_version")
    assert str(version) in detail["problem"]
    assert all_keys(redis_url) == before


@pytest.mark.parametrize("name", ["x" * 201, "a\x1b[31mb", "a\tb"], ids=repr)
def test_a_name_that_is_none_is_refused(client, redis_url, name):
    client.get(CONFIG)
    before = all_keys(redis_url)
    for change in CHANGES.values():
        response = change(client, **{"X-Operator": name})
        [detail] = assert_refused(response, 400, "invalid_operator")
        assert detail["field"] == "X-Operator"
    assert all_keys(redis_url) == before
    assert CHANGES["PUT"](client, **{"X-Operator": ""}).status_code == 200
    assert versions(client)[0]["operator"] is None


def test_a_name_by_the_authorizer_has_to_be_one_too(redis_url):
    app = Flask("the-users-own")
    celery_app = Celery("named", broker=redis_url, set_as_current=False)
    app.register_blueprint(create_blueprint(celery_app, authorize=lambda request: "bob\n"))
    client = app.test_client()
    assert client.get(CONFIG).status_code == 200
    [detail] = assert_refused(client.put(CONFIG, json={}), 400, "invalid_operator")
    assert detail["field"] == "authorize"


@pytest.mark.parametrize(
    ("answer", "operator"), [("bob", "bob"), (True, "claimed"), (object(), "claimed")]
)
def test_whom_the_authorizer_names_is_the_operator(redis_url, answer, operator):
    app = Flask("the-users-own")
    celery_app = Celery("named", broker=redis_url, set_as_current=False)
    app.register_blueprint(create_blueprint(celery_app, authorize=lambda request: answer))
    client = app.test_client()
    for change in (CHANGES["PUT"], CHANGES["reset"], CHANGES["rollback"]):
        assert change(client, **{"X-Operator": "claimed"}).status_code == 200
        assert versions(client)[0]["operator"] == operator
