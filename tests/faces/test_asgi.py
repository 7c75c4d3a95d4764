"""The admin app as an ASGI application (``api/asgi.py``), mounted in Starlette."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Mount
from starlette.testclient import TestClient

from celery_concurrency.api import create_asgi_app
from celery_concurrency.api.blueprint import ROUTES, URL_PREFIX
from celery_concurrency.errors import ImproperlyConfigured

BASE = f"/limits{URL_PREFIX}"


@pytest.fixture
def mounted(redis_url, limiter):
    """Makes clients of a Starlette app with the admin app under /limits."""

    def make(authorize=None, **options):
        celery = Celery("mounted", broker=redis_url, set_as_current=False)
        app = Starlette(
            routes=[Mount("/limits", create_asgi_app(celery, authorize))],
            middleware=[Middleware(SessionMiddleware, secret_key="a secret of the tests")],
        )
        return TestClient(app, **options)

    return make


def shape(value):
    """Return a JSON value without its numbers, which differ from moment to moment."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "number" if isinstance(value, int | float) else value


def test_it_answers_as_the_flask_app_does(mounted, client):
    plain = [
        *(route.path for route in ROUTES if route.method == "GET" and "<" not in route.path),
        *("/waiting/nobody", "/nothing", "/waiting?limit=%E8%B4%A6%E5%8F%B7:1", "/stats?window=2h"),
    ]
    asgi = mounted()
    for path in plain:
        ours, flask = asgi.get(BASE + path), client.get(URL_PREFIX + path)
        assert ours.status_code == flask.status_code, path
        assert ours.headers["Content-Type"] == flask.headers["Content-Type"], path
        if flask.is_json:
            here = json.loads(ours.text.replace(BASE, URL_PREFIX))  # in /openapi.json
            assert shape(here) == shape(flask.json), path
    assert asgi.post(f"{BASE}/config").status_code == 405


def test_a_change_and_a_refused_one(mounted, limiter):
    asgi = mounted()
    name = "账号" * 20_000
    assert asgi.put(f"{BASE}/config", json={"account_max": 2}).json()["success"]
    assert limiter.config.sync().config.account_max == 2
    too_long = asgi.put(f"{BASE}/config", json={"account_overrides": {name: 1}})
    assert too_long.status_code == 400
    assert not too_long.json()["success"]
    foreign = asgi.put(
        f"{BASE}/config", json={"account_max": 3}, headers={"Origin": "https://evil.example"}
    )
    assert foreign.status_code == 403
    assert limiter.config.sync().config.account_max == 2


def test_the_page_finds_the_api(mounted):
    asgi = mounted()
    page = asgi.get("/limits/")
    assert 'data-api="api/v1/concurrency"' in page.text
    assert asgi.get("/limits/static/main.js").status_code == 200


def test_authorize_sees_what_middleware_left_in_the_scope(mounted):
    seen = []

    def authorize(request):
        seen.append(request.environ["asgi.scope"]["session"])
        return "ann"

    asgi = mounted(authorize)
    assert asgi.put(f"{BASE}/config", json={"account_max": 2}).status_code == 200
    assert seen == [{}]
    history = asgi.get(f"{BASE}/config/history").json()["data"]
    assert history["versions"][0]["operator"] == "ann"


def test_slow_requests_leave_the_event_loop_free(mounted):
    """More requests at once than one: each in a thread."""
    both = threading.Barrier(2, timeout=30)

    def authorize(request):
        both.wait()
        return True

    with mounted(authorize) as asgi, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: asgi.get(f"{BASE}/config").status_code, range(2)))
    assert answers == [200, 200]


def test_without_the_extra_it_says_what_to_install(redis_url, monkeypatch):
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(ImproperlyConfigured, match=r"celery-concurrency\[asgi\]"):
        create_asgi_app(Celery("lacking", broker=redis_url, set_as_current=False))


def test_wrong_settings_fail_at_once():
    celery = Celery("wrong", broker="memory://", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="concurrency_redis_url"):
        create_asgi_app(celery)
