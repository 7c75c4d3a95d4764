"""The HTTP API: the seed's routes and envelope, and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from flask import Flask, abort, redirect
from redis import Redis

from celery_concurrency.api import create_app, create_blueprint
from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.stats.counters import SNAPSHOT_SECONDS
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.apps import limiter_of
from tests.support.answers import all_keys, assert_refused

BASE = "/api/v1/concurrency"
CONFIG = f"{BASE}/config"
DEFAULTS = Config().to_dict()
ENGLISH = {"Accept-Language": "en"}


@pytest.fixture
def served(serving, redis_url):
    """The port of a real server on an empty Redis."""
    return serving.port


# -- the seed's five routes


def test_config_is_the_seeds(client):
    response = client.get(CONFIG)
    assert response.status_code == 200
    assert response.json == {"success": True, "data": DEFAULTS}
    assert list(response.json["data"]) == list(DEFAULTS)
    assert "no-store" in response.headers["Cache-Control"]


def test_put_changes_only_what_it_names(client, limiter):
    change = {"global_max": 20, "platform_max": {"douyin": 10}, "enabled": True}
    data = {
        **DEFAULTS,
        "global_max": 20,
        "platform_max": {**DEFAULTS["platform_max"], "douyin": 10},
    }
    response = client.put(CONFIG, json=change)
    assert response.status_code == 200
    assert response.json == {
        "success": True,
        "data": data,
        "message": "并发配置更新成功，已立即生效",
    }
    assert client.get(CONFIG).json["data"] == data
    assert limiter.config.sync().config.to_dict() == data


def test_fields_beyond_the_seeds_show_while_they_say_something(client):
    more = {
        "account_overrides": {"vip": 3},
        "dimensions": {"tenant": {"max": 2, "overrides": {}}},
        "paused": ["global"],
    }
    assert client.put(CONFIG, json=more).json["data"] == {**DEFAULTS, **more}
    back = {"account_overrides": {"vip": None}, "dimensions": {"tenant": None}, "paused": []}
    assert client.put(CONFIG, json=back).json["data"] == DEFAULTS


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_goes_by_other_names_too(client, kind):
    response = client.put(CONFIG, data='{"global_max": 1}', content_type=kind)
    assert response.json["data"]["global_max"] == 1


@pytest.mark.parametrize(
    ("accepted", "chinese"),
    [
        (None, True),
        ("", True),
        ("zh-CN,zh;q=0.9,en;q=0.8", True),
        ("fr", True),
        ("*", True),
        ("en;q=0.1,zh;q=0.9", True),
        ("nonsense;;q=x,,", True),
        ("en", False),
        ("en-US,en;q=0.9,zh-CN;q=0.8", False),
        ("fr,en;q=0.5", False),
    ],
)
def test_messages_are_chinese_unless_english_is_preferred(client, accepted, chinese):
    headers = {} if accepted is None else {"Accept-Language": accepted}
    done = client.put(CONFIG, json={"global_max": 1}, headers=headers)
    reset = client.post(f"{BASE}/reset", headers=headers)
    refused = client.put(CONFIG, json={"global_max": -1}, headers=headers)
    for response in (done, reset, refused):
        assert response.json["message"].isascii() != chinese
        assert "Accept-Language" in response.headers["Vary"]


def test_reset(client):
    client.put(CONFIG, json={"global_max": 3, "platform_max": {"new": 1, "douyin": 4}})
    response = client.post(f"{BASE}/reset")
    assert response.status_code == 200
    assert response.json == {
        "success": True,
        "data": DEFAULTS,
        "message": "并发配置已重置为默认值，已立即生效",
    }
    assert client.get(CONFIG).json["data"] == DEFAULTS


def test_usage_of_nothing_shows_what_is_configured(client):
    none = {"current": 0, "max": 0}
    assert client.get(f"{BASE}/usage").json == {
        "success": True,
        "data": {
            "global": none,
            "platforms": dict.fromkeys(DEFAULTS["platform_max"], none),
            "task_types": dict.fromkeys(DEFAULTS["task_type_max"], none),
            "accounts": {},
            "dimensions": {},
        },
    }


def test_usage_counts_what_runs(client, limiter):
    client.put(
        CONFIG,
        json={
            "global_max": 10,
            "platform_max": {"douyin": 5, "*": 7},
            "task_type_max": {"publish": 10},
            "account_overrides": {"vip": 3},
            "dimensions": {"tenant": {"max": 2}},
            "paused": ["platform:kuaishou", "account:idle"],
        },
    )
    limiter.try_acquire("1", {"platform": "douyin", "account": "vip", "type": "publish"})
    limiter.try_acquire("2", {"platform": "douyin", "account": "acc2", "type": "other"})
    limiter.try_acquire("3", {"platform": "weibo", "tenant": "t1"})
    limiter.try_acquire("4", {})
    limiter.try_acquire("5", {"account": "gone"})
    limiter.release("5")
    none = {"current": 0, "max": 0}
    assert client.get(f"{BASE}/usage").json["data"] == {
        "global": {"current": 4, "max": 10},
        "platforms": {
            "douyin": {"current": 2, "max": 5},
            "weibo": {"current": 1, "max": 7},
            "kuaishou": {**none, "paused": True},
            **dict.fromkeys(("xiaohongshu", "bilibili", "channels"), none),
        },
        "task_types": {
            "publish": {"current": 1, "max": 10},
            "batch_publish": none,
            "other": {"current": 1, "max": 0},
        },
        "accounts": {
            "vip": {"current": 1, "max": 3},
            "acc2": {"current": 1, "max": 1},
            "idle": {"current": 0, "max": 1, "paused": True},
        },
        "dimensions": {"tenant": {"t1": {"current": 1, "max": 2}}},
    }


def test_usage_of_a_dimension_that_was_taken_out(client, limiter):
    client.put(CONFIG, json={"dimensions": {"tenant": {"max": 2}}, "task_type_max": {"t1": 9}})
    limiter.try_acquire("1", {"tenant": "t1"})
    client.put(CONFIG, json={"dimensions": {"tenant": None}})
    usage = client.get(f"{BASE}/usage").json["data"]
    assert usage["dimensions"] == {"tenant": {"t1": {"current": 1, "max": 0}}}


def test_usage_counts_living_tokens_only(client, limiter, redis):
    limiter.try_acquire("1", {"account": "a"})
    for key in ("leases", "semaphore:global", "semaphore:account:a"):
        redis.zadd(f"concurrency:{key}", {"1": 1_000_000_000})
    usage = client.get(f"{BASE}/usage").json["data"]
    assert usage["global"]["current"] == 0
    assert usage["accounts"] == {}


def test_usage_does_not_count_what_an_operator_deleted(client, limiter, redis):
    limiter.try_acquire("1", {"account": "a", "platform": "weibo"})
    redis.delete("concurrency:semaphore:account:a", "concurrency:semaphore:platform:weibo")
    usage = client.get(f"{BASE}/usage").json["data"]
    assert usage["global"]["current"] == 1
    assert usage["accounts"] == {}
    assert set(usage["platforms"]) == set(DEFAULTS["platform_max"])


def test_usage_says_what_is_wrong_with_a_text_written_by_hand(client, redis):
    client.put(CONFIG, json={"global_max": 2})
    redis.set("concurrency:config", '{"globel_max": 1}')
    assert "globel_max" in client.get(f"{BASE}/usage").json["data"]["config_problem"]
    assert client.get(CONFIG).json["data"]["global_max"] == 2
    client.put(CONFIG, json={"global_max": 3})
    assert "config_problem" not in client.get(f"{BASE}/usage").json["data"]


def test_stats_are_the_seeds(client, limiter):
    zero = {"acquired:total": 0, "released:total": 0}
    assert client.get(f"{BASE}/stats").json == {"success": True, "data": zero}
    limiter.try_acquire("1", {"platform": "douyin", "type": "publish", "account": "a"})
    limiter.try_acquire("2", {"platform": "douyin", "account": "a"})  # has to wait
    limiter.try_acquire("3", {})
    limiter.release("1")
    counted = {
        "acquired:total": 2,
        "released:total": 1,
        "acquired:platform:douyin": 1,
        "acquired:task_type:publish": 1,
        "denied:total": 1,
        "denied:platform:douyin": 1,
    }
    for query in ("", "?window=24h", "?window=1h", "?window=total"):
        assert client.get(f"{BASE}/stats{query}").json["data"] == counted


def test_a_window_of_the_statistics_begins_where_it_says(client, limiter, redis):
    now = int(redis.time()[0])
    for age, total in ((25 * 3600, 100), (2 * 3600, 400)):
        copy = json.dumps({"acquired:total": total, "released:total": total})
        at = f"{(now - age - SNAPSHOT_SECONDS) * 1000}-0"
        redis.xadd("concurrency:stats:history", {"counters": copy}, id=at)
    redis.hset(
        "concurrency:stats:counters", mapping={"acquired:total": 1000, "released:total": 900}
    )
    got = {
        window: client.get(f"{BASE}/stats?window={window}").json["data"]
        for window in ("total", "24h", "6h", "1h")
    }
    assert {window: data["acquired:total"] for window, data in got.items()} == {
        "total": 1000,
        "24h": 900,
        "6h": 900,
        "1h": 600,
    }
    assert got["1h"]["released:total"] == 500
    assert client.get(f"{BASE}/stats").json["data"] == got["24h"]


@pytest.mark.parametrize("window", ["", "2h", "24H", "total ", "%ff", "x" * 5000])
def test_there_is_no_such_window(client, window):
    response = client.get(f"{BASE}/stats?window={window}", headers=ENGLISH)
    [detail] = assert_refused(response, 400, "invalid_query")
    assert detail["field"] == "window"
    assert "'1h', '6h', '24h' or 'total'" in detail["problem"]
    assert len(detail["problem"]) < 120


def test_health(client, redis, redis_url):
    data = client.get(f"{BASE}/health").json["data"]
    assert set(data) == {"config_version", "ping_ms"}
    assert data["config_version"] == 0
    assert all_keys(redis_url) == {}
    client.put(CONFIG, json={"global_max": 2})
    data = client.get(f"{BASE}/health").json["data"]
    assert data["config_version"] == 2
    assert 0 < data["ping_ms"] < 60_000


# -- what is refused

JSON = "application/json"
# name: (body, content type, status, code, the field that the details name)
BAD = {
    "not JSON": (b"{global_max: 1}", JSON, 400, "invalid_json", ""),
    "a comment": (b'{"global_max": 1} // one', JSON, 400, "invalid_json", ""),
    "empty": (b"", JSON, 400, "invalid_json", ""),
    "cut off": (b'{"global_max": 1', JSON, 400, "invalid_json", ""),
    "NaN": (b'{"global_max": NaN}', JSON, 400, "invalid_json", ""),
    "Infinity": (b'{"global_max": -Infinity}', JSON, 400, "invalid_json", ""),
    "5000 digits": (b'{"global_max": %s}' % (b"9" * 5000), JSON, 400, "invalid_json", ""),
    "deep": (b'{"platform_max": %s' % (b'{"a":' * 100_000), JSON, 400, "invalid_json", ""),
    "deep and whole": (b"[" * 50_000 + b"]" * 50_000, JSON, 400, "invalid_json", ""),
    "bad UTF-8": (b'{"platform_max": {"\xff": 1}}', JSON, 400, "invalid_json", ""),
    "UTF-16": ('{"global_max": 1}'.encode("utf-16"), JSON, 400, "invalid_json", ""),
    "lone surrogate": (b'{"platform_max": {"\\ud800": 1}}', JSON, 400, "invalid_json", ""),
    "form": (b"global_max=1", "application/x-www-form-urlencoded", 415, None, None),
    "text": (b'{"global_max": 1}', "text/plain", 415, None, None),
    "no content type": (b'{"global_max": 1}', None, 415, None, None),
    "3 MB": (b'{"global_max": 1}' + b" " * 3_000_000, JSON, 413, None, None),
    "list": (b'[{"global_max": 1}]', JSON, 400, "invalid_config", ""),
    "text in JSON": (b'"global_max"', JSON, 400, "invalid_config", ""),
    "null": (b"null", JSON, 400, "invalid_config", ""),
    "null field": (b'{"global_max": null}', JSON, 400, "invalid_config", "global_max"),
    "null map": (b'{"platform_max": null}', JSON, 400, "invalid_config", "platform_max"),
    "text for int": (b'{"global_max": "1"}', JSON, 400, "invalid_config", "global_max"),
    "bool": (b'{"global_max": true}', JSON, 400, "invalid_config", "global_max"),
    "int for bool": (b'{"enabled": 1}', JSON, 400, "invalid_config", "enabled"),
    "float": (b'{"global_max": 1.5}', JSON, 400, "invalid_config", "global_max"),
    "whole float": (b'{"global_max": 1.0}', JSON, 400, "invalid_config", "global_max"),
    "infinite": (b'{"global_max": 1e999}', JSON, 400, "invalid_config", "global_max"),
    "negative": (b'{"account_max": -1}', JSON, 400, "invalid_config", "account_max"),
    "too much": (b'{"account_max": 1000001}', JSON, 400, "invalid_config", "account_max"),
    "4000 digits": (
        b'{"global_max": %s}' % (b"9" * 4000), JSON, 400, "invalid_config", "global_max",
    ),
    "no timeout": (b'{"timeout": 0}', JSON, 400, "invalid_config", "timeout"),
    "two days": (b'{"timeout": 172800}', JSON, 400, "invalid_config", "timeout"),
    "list for map": (b'{"platform_max": []}', JSON, 400, "invalid_config", "platform_max"),
    "map for int": (b'{"global_max": {"a": 1}}', JSON, 400, "invalid_config", "global_max"),
    "in a map": (
        b'{"platform_max": {"douyin": -1}}', JSON, 400, "invalid_config", "platform_max.douyin",
    ),
    "unknown": (b'{"globel_max": 1}', JSON, 400, "invalid_config", "globel_max"),
    "unknown nested": (
        b'{"dimensions": {"tenant": {"mux": 1}}}',
        JSON, 400, "invalid_config", "dimensions.tenant.mux",
    ),
    "empty name": (b'{"platform_max": {"": 1}}', JSON, 400, "invalid_config", "platform_max."),
    "201 characters": (
        b'{"account_overrides": {"%s": 1}}' % (b"x" * 201),
        JSON, 400, "invalid_config", "account_overrides.xxx",
    ),
    "reserved dimension": (
        b'{"dimensions": {"id": {"max": 1}}}', JSON, 400, "invalid_config", "dimensions.id",
    ),
    "paused no limit": (b'{"paused": ["platform"]}', JSON, 400, "invalid_config", ""),
    "paused unknown": (b'{"paused": ["tenant:a"]}', JSON, 400, "invalid_config", ""),
    "paused a text": (b'{"paused": "global"}', JSON, 400, "invalid_config", "paused"),
    "one of two": (
        b'{"global_max": 9, "account_max": -1}', JSON, 400, "invalid_config", "account_max",
    ),
}  # fmt: skip
CODES = {413: "too_large", 415: "unsupported_media_type"}


@pytest.mark.parametrize(("body", "kind", "status", "code", "field"), BAD.values(), ids=BAD.keys())
def test_a_bad_configuration_is_refused_and_changes_nothing(
    client, redis_url, body, kind, status, code, field
):
    client.put(CONFIG, json={"global_max": 3, "platform_max": {"x": 1}})
    before = all_keys(redis_url)
    assert before
    response = client.put(CONFIG, data=body, content_type=kind)
    details = assert_refused(response, status, code or CODES[status])
    if field is not None:
        assert details[0]["field"].startswith(field)
        assert bool(details[0]["field"]) == bool(field)
        assert details[0]["problem"]
    assert len(response.get_data()) < 20_000
    assert all_keys(redis_url) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("POST", "/config/"),
        ("GET", "/usage/"),
        ("GET", "/waiting/"),
        ("DELETE", "/tokens/"),
        ("PATCH", "/config/x"),
        ("GET", ""),
        ("GET", "/"),
        ("POST", "/"),
        ("GET", "/%00"),
        ("GET", "/配置"),
    ],
)
def test_there_is_nothing_at_this_address(client, method, path):
    assert_refused(client.open(BASE + path, method=method), 404, "not_found")


@pytest.mark.parametrize("path", ["/api", "/nothing", "/api/v1/other"])
def test_the_app_answers_in_the_envelope_everywhere(client, path):
    assert_refused(client.get(path), 404, "not_found")


ALLOWED = {
    "config": {"GET", "PUT"},
    "usage": {"GET"},
    "stats": {"GET"},
    "reset": {"POST"},
    "config/history": {"GET"},
    "config/rollback": {"POST"},
    "tokens": {"GET"},
    "tokens/t:1": {"DELETE"},
    "health": {"GET"},
    "openapi.json": {"GET"},
}
BODIES = {"config": {}, "config/rollback": {"version": 1}}


@pytest.mark.parametrize("path", ALLOWED)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_wrong_methods_are_told_the_right_ones(client, limiter, redis_url, path, method):
    if method in ALLOWED[path]:
        client.get(CONFIG)
        limiter.try_acquire("t:1", {})
        response = client.open(f"{BASE}/{path}", method=method, json=BODIES.get(path))
        assert response.status_code == 200
        return
    before = all_keys(redis_url)
    response = client.open(f"{BASE}/{path}", method=method, json={})
    assert_refused(response, 405, "method_not_allowed")
    told = set(response.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"}
    assert told == ALLOWED[path]
    assert all_keys(redis_url) == before


@pytest.mark.parametrize(
    ("path", "status"),
    [("config", 200), ("usage", 200), ("stats", 200), ("nope", 404), ("reset", 405)],
)
def test_head_is_get_without_a_body(client, path, status):
    response = client.head(f"{BASE}/{path}")
    assert response.status_code == status
    assert response.get_data() == b""
    assert int(response.headers["Content-Length"]) > 0


# -- over a real server


def request(port, method, path, body=None, headers=None, chunked=False):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, headers or {}, encode_chunked=chunked)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def test_a_chunked_body_is_read(served):
    parts = iter([b'{"global_', b'max": 6}'])
    headers = {"Content-Type": JSON, "Transfer-Encoding": "chunked"}
    status, body = request(served, "PUT", CONFIG, parts, headers, chunked=True)
    assert (status, body["data"]["global_max"]) == (200, 6)


def test_a_long_chunked_body_is_refused(served, redis_url):
    request(served, "GET", CONFIG)
    before = all_keys(redis_url)
    parts = (b" " * 100_000 for _ in range(30))
    headers = {"Content-Type": JSON, "Transfer-Encoding": "chunked"}
    status, body = request(served, "PUT", CONFIG, parts, headers, chunked=True)
    assert (status, body["error"]["code"]) == (413, "too_large")
    assert all_keys(redis_url) == before


def test_a_long_body_is_refused(served):
    headers = {"Content-Type": JSON}
    status, body = request(served, "PUT", CONFIG, b" " * 3_000_000, headers)
    assert (status, body["error"]["code"]) == (413, "too_large")


def test_no_body_at_all_is_refused(served):
    status, body = request(served, "PUT", CONFIG, headers={"Content-Type": JSON})
    assert (status, body["error"]["code"]) == (400, "invalid_json")


# -- in the user's own app


@pytest.fixture
def mounted(celery_app):
    """Mounts the blueprint in an app of the user's: ``mounted(authorize)``."""

    def mount(authorize=None):
        app = Flask("the-users-own")
        app.register_blueprint(create_blueprint(celery_app, authorize=authorize))

        @app.get("/hello")
        def hello():
            return "hello"

        @app.errorhandler(404)
        def not_found(exc):
            return "the user's own 404 page", 404

        @app.errorhandler(500)
        def broken(exc):
            return "the user's own 500 page", 500

        return app.test_client()

    return mount


def test_a_users_app_keeps_its_own_pages(mounted):
    client = mounted()
    assert client.get("/hello").text == "hello"
    for path in ("/nope", "/api/v1/nope", "/api/v1/concurrencyx", "/api/v1"):
        response = client.get(path)
        assert (response.status_code, response.text) == (404, "the user's own 404 page")
    assert client.post("/hello").status_code == 405
    assert client.post("/hello").mimetype == "text/html"


def test_ours_answer_in_the_envelope_there(mounted):
    client = mounted()
    assert client.get(CONFIG).json["data"] == DEFAULTS
    assert client.put(CONFIG, json={"global_max": 2}).json["data"]["global_max"] == 2
    assert_refused(client.get(f"{BASE}/nope"), 404, "not_found")
    assert_refused(client.get(BASE), 404, "not_found")
    assert_refused(client.delete(CONFIG), 405, "method_not_allowed")
    assert_refused(client.put(CONFIG, data="x"), 415, "unsupported_media_type")
    assert_refused(client.put(CONFIG, json={"x": 1}), 400, "invalid_config")


ALL_CALLS = [
    ("GET", "/config"), ("PUT", "/config"), ("GET", "/usage"), ("GET", "/stats"),
    ("POST", "/reset"), ("GET", "/nope"), ("DELETE", "/config"), ("HEAD", "/config"),
    ("OPTIONS", "/config"), ("GET", ""), ("GET", "/config/history"), ("POST", "/config/rollback"),
    ("GET", "/tokens"), ("DELETE", "/tokens/t:1"), ("GET", "/health"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ALL_CALLS)
def test_who_is_not_authorized_gets_nothing(mounted, redis_url, method, path):
    client = mounted(lambda request: request.headers.get("X-Key") == "right")
    response = client.open(BASE + path, method=method, json={"global_max": 1})
    assert response.status_code == 403
    if method != "HEAD":
        assert_refused(response, 403, "forbidden")
    assert all_keys(redis_url) == {}
    assert client.get("/hello").status_code == 200
    allowed = client.open(BASE + path, method=method, json={}, headers={"X-Key": "right"})
    assert allowed.status_code != 403


def test_an_authorizer_may_answer_itself(mounted):
    def authorize(request):
        match request.args.get("do"):
            case "login":
                abort(redirect("/login"))
            case "401":
                abort(401)
            case "429":
                abort(429)
            case "bug":
                raise RuntimeError("a secret detail")

    client = mounted(authorize)
    login = client.get(f"{CONFIG}?do=login")
    assert (login.status_code, login.location) == (302, "/login")
    assert_refused(client.get(f"{CONFIG}?do=401"), 401, "unauthorized")
    assert_refused(client.get(f"{CONFIG}?do=429"), 429, "bad_request")
    bug = client.get(f"{CONFIG}?do=bug")
    assert_refused(bug, 500, "internal")
    assert "secret" not in bug.text


def test_two_apps_in_one(redis_url, server):
    """Two Celery apps, each with its limits, in one Flask app."""
    app = Flask("two")
    for db in (0, 1):
        celery_app = Celery(f"app{db}", broker=server.url(db), set_as_current=False)
        blueprint = create_blueprint(celery_app)
        app.register_blueprint(blueprint, name=f"c{db}", url_prefix=f"/{db}")
    client = app.test_client()
    client.put("/0/config", json={"global_max": 7})
    assert client.get("/0/config").json["data"]["global_max"] == 7
    assert client.get("/1/config").json["data"]["global_max"] == 0


def test_wrong_settings_are_told_when_it_is_made():
    app = Celery("wrong", broker="amqp://", backend="rpc://", set_as_current=False)
    for make in (create_app, create_blueprint):
        with pytest.raises(ImproperlyConfigured, match="concurrency_redis_url"):
            make(app)


# -- without Redis


@pytest.fixture(scope="module")
def mortal():
    """A server of one's own, to be killed."""
    with Server() as server:
        yield server


EVERY_ROUTE = [*ALL_CALLS[:5], *ALL_CALLS[-5:]]


def body_of(path):
    return {"version": 1} if path == "/config/rollback" else {"global_max": 1}


def test_without_redis_it_says_so_and_recovers(mortal):
    """The connections of before are dead too; the first call after it is back succeeds."""
    mortal.start()
    app = Celery("mortal", broker=mortal.url(), set_as_current=False)
    client = create_app(app).test_client()
    assert client.get(CONFIG).status_code == 200
    for _ in range(2):
        mortal.kill()
        for method, path in EVERY_ROUTE:
            begun = time.monotonic()
            response = client.open(BASE + path, method=method, json=body_of(path))
            assert_refused(response, 503, "unavailable")
            assert int(response.headers["Retry-After"]) > 0
            assert time.monotonic() - begun < 20
        # What the request itself has wrong is said all the same.
        assert_refused(client.put(CONFIG, data=b"{", content_type=JSON), 400, "invalid_json")
        mortal.start()
        assert client.put(CONFIG, json={"global_max": 4}).json["data"]["global_max"] == 4
        assert client.get(CONFIG).json["data"] == {**DEFAULTS, "global_max": 4}


def test_a_redis_that_hangs_is_away_too(mortal):
    """It takes connections and answers nothing: a 503 within seconds, not never."""
    mortal.start()
    app = Celery("hanging", broker=mortal.url(), set_as_current=False)
    client = create_app(app).test_client()
    assert client.get(CONFIG).status_code == 200

    def call(route):
        begun = time.monotonic()
        response = app_client().open(BASE + route[1], method=route[0], json=body_of(route[1]))
        return response, time.monotonic() - begun

    app_client = create_app(app).test_client
    os.kill(mortal.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(EVERY_ROUTE)) as pool:
            answers = list(pool.map(call, EVERY_ROUTE))
    finally:
        os.kill(mortal.pid, signal.SIGCONT)
    for response, seconds in answers:
        assert_refused(response, 503, "unavailable")
        assert seconds < 20
    assert client.get(CONFIG).status_code == 200


def test_made_without_redis_it_serves_when_redis_comes(mortal):
    mortal.kill()
    app = Celery("early", broker=mortal.url(), set_as_current=False)
    client = create_app(app).test_client()
    assert_refused(client.get(CONFIG), 503, "unavailable")
    mortal.start()
    assert client.get(CONFIG).json["data"] == DEFAULTS


@pytest.mark.parametrize("path", ["/config", "/usage"])
def test_a_redis_that_refuses_is_away_too(mortal, path):
    """A replica: what reads goes on, what writes is refused with a 503."""
    mortal.start()
    app = Celery("full", broker=mortal.url(), set_as_current=False)
    client = create_app(app).test_client()
    assert client.get(BASE + path).status_code == 200
    with Redis.from_url(mortal.url()) as admin:
        admin.replicaof("127.0.0.1", "1")
        try:
            assert client.get(BASE + path).status_code == 200
            assert_refused(client.put(CONFIG, json={"global_max": 9}), 503, "unavailable")
            assert client.get(CONFIG).json["data"]["global_max"] != 9
        finally:
            admin.replicaof("NO", "ONE")


def test_a_change_that_others_overtook_is_a_conflict(client, celery_app, redis_url, monkeypatch):
    store = limiter_of(celery_app).config
    client.get(CONFIG)
    before = all_keys(redis_url)
    monkeypatch.setattr("celery_concurrency.limiter.config.store.PAUSE", 0)
    monkeypatch.setattr(store, "_write", lambda *args: None)
    assert_refused(client.put(CONFIG, json={"global_max": 1}), 409, "conflict")
    assert all_keys(redis_url) == before
