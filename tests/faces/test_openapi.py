"""The API's description, and that the API is as it says: schemathesis tries to disprove it.

Its examples are others in each run. A failure prints its seed: OPENAPI_SEED=N runs them again.
"""

from __future__ import annotations

import os
import re
import secrets

import pytest
import schemathesis
from celery import Celery
from flask import Flask
from hypothesis import HealthCheck, given, seed, settings
from redis import Redis
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from celery_concurrency.api import URL_PREFIX, create_app, create_blueprint
from celery_concurrency.api.blueprint import ROUTES
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.worker.apps import limiter_of
from tests.support.waiting import park
from tests.support.workers import settle

#: Of a path, as Flask writes it.
PARAMETER = r"<(?:\w+:)?(\w+)>"

DOCUMENT = f"{URL_PREFIX}/openapi.json"

SEED = int(os.environ.get("OPENAPI_SEED") or secrets.randbits(32))
EXAMPLES = 30

#: All but positive_data_acceptance: which names limits and dimensions may have, and
#: which versions there are, no schema can say.
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
)


def closed(schema):
    """Return a schema in which nothing may be that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(one) for name, one in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        inner.setdefault("additionalProperties", False)
    return inner


def app_on(url):
    """Return the admin app on a database with something of everything in it."""
    with Redis.from_url(url) as client:
        client.flushdb()
        settle(client)
    celery_app = Celery("described", broker=url, set_as_current=False)
    limiter = limiter_of(celery_app)
    tags = {"platform": "douyin", "account": "a", "type": "publish", "tenant": "t1"}
    limiter.config.update({"dimensions": {"tenant": {"max": 2}}, "paused": ["global"]})
    limiter.config.update({"paused": []})
    limiter.config.update({"rates": {"account:*": [{"max": 1, "per": 60}]}})
    limiter.config.update({"adaptive": {"platform:*": {"min": 1, "max": 9, "mode": "observe"}}})
    limiter.cooldowns.set("platform:bilibili", 600, "429", "ann")
    limiter.try_acquire("t1:a", tags, task="publish", worker="w1")
    limiter.try_acquire("t2:b", {})
    limiter.try_acquire("t3:c", {**tags, "account": "c"})
    limiter.release("t3:c")
    limiter.refuse("t2:b", ("global", "platform:douyin"), "platform:douyin", 0, reason="429")
    limiter.durations.tally()
    limiter.stats.snapshot()
    park(limiter, "w1", tags)
    park(limiter, "w2", tags, rank=3)
    park(limiter, "w3", {"account": "c"})
    park(limiter, "w4", {"platform": "bilibili"})
    return create_app(celery_app)


@pytest.fixture(scope="module")
def app(server):
    return app_on(server.url(5))


@pytest.fixture(scope="module")
def api(app):
    document = app.test_client().get(DOCUMENT).json
    document["components"]["schemas"] = closed(document["components"]["schemas"])
    # As schemathesis.openapi.from_wsgi does it, but for what was closed in between.
    # A 412 refuses as well, whatever else was wrong.
    rejection = {"negative_data_rejection": {"expected-statuses": ["4xx"]}}
    config = schemathesis.Config.from_dict({"checks": rejection})
    loaded = schemathesis.openapi.from_dict(document, config=config)
    loaded.app, loaded.location = app, DOCUMENT
    return loaded


#: What is sent to each route: what it says it takes, and, where it says that, what it does not.
CASES = [
    pytest.param(mode, route, id=f"{route.method} {route.path} {mode.value}")
    for route in ROUTES
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or route.query or route.body or route.method != "GET"
]


# Not schemathesis' own parametrize, whose pytest plugin does not work with pytest 9.2.
@pytest.mark.parametrize(("mode", "route"), CASES)
def test_it_is_as_it_says(api, mode, route):
    operation = api[re.sub(PARAMETER, r"{\1}", route.path)][route.method]
    print(f"OPENAPI_SEED={SEED}")

    @seed(SEED)
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def try_to_disprove(case):
        case.call_and_validate(checks=CHECKS)

    try_to_disprove()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/config", None, 200),
        ("PUT", "/config", {"platform_max": {"x": 1}, "paused": ["account:a"]}, 200),
        ("PUT", "/config", {"globel_max": 1}, 400),
        ("POST", "/config/rollback", {"version": 1}, 200),
        ("POST", "/config/rollback", {"version": 77_777}, 404),
        ("GET", "/config/history", None, 200),
        ("GET", "/usage", None, 200),
        ("GET", "/stats", None, 200),
        ("GET", "/stats/history", None, 200),
        ("GET", "/tokens", None, 200),
        ("DELETE", "/tokens/t2:b", None, 200),
        ("GET", "/waiting", None, 200),
        ("GET", "/waiting/w1", None, 200),
        ("GET", "/waiting/w2", None, 200),
        ("GET", "/waiting/w3", None, 200),
        ("GET", "/waiting/w4", None, 200),
        ("GET", "/cooldowns", None, 200),
        ("POST", "/cooldowns", {"limit": "account:a", "seconds": 9.5, "reason": "429"}, 200),
        ("POST", "/cooldowns", {"limit": "account:a", "seconds": 604_801}, 400),
        ("POST", "/cooldowns", {"limit": "acount:a", "seconds": 1}, 400),
        ("DELETE", "/cooldowns?limit=platform:bilibili", None, 200),
        ("DELETE", "/cooldowns?limit=platform:douyin", None, 404),
        ("GET", "/adaptive", None, 200),
        ("GET", "/adaptive/history?limit=platform:douyin", None, 200),
        ("GET", "/adaptive/history?limit=global", None, 404),
        ("DELETE", "/adaptive?limit=platform:douyin", None, 200),
        ("DELETE", "/adaptive?limit=account:a", None, 404),
        ("PUT", "/config", {"adaptive": {"account:*": {"min": 1, "max": 2}}}, 200),
        ("PUT", "/config", {"adaptive": {"account:*": {"min": 3, "max": 2}}}, 400),
        ("GET", "/waiting/t1", None, 404),
        ("DELETE", "/waiting/w1", None, 200),
        ("DELETE", "/waiting?limit=global", None, 200),
        ("GET", "/health", None, 200),
        ("GET", "/metrics", None, 200),
    ],
)
def test_what_is_really_there_is_as_it_says(api, redis_url, method, path, body, status):
    """With something in it: what is made up hardly ever meets a token or a version."""
    response = app_on(redis_url).test_client().open(URL_PREFIX + path, method=method, json=body)
    assert response.status_code == status
    address = re.sub("/tokens/.*", "/tokens/{token}", path.partition("?")[0])
    address = re.sub("/waiting/.*", "/waiting/{task_id}", address)
    api[address][method].validate_response(schemathesis.Response.from_any(response))


def rules_of(flask_app):
    """Return method and path, as OpenAPI writes it, of all that the blueprint answers."""
    return {
        (method, re.sub(PARAMETER, r"{\1}", rule.rule.removeprefix(URL_PREFIX)))
        for rule in flask_app.url_map.iter_rules()
        if rule.rule.startswith(URL_PREFIX)
        if not rule.endpoint.endswith(".no_route")  # it answers 404 and 405
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def test_every_route_is_in_it(app, celery_app):
    paths = app.test_client().get(DOCUMENT).json["paths"]
    described = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert described == rules_of(app)
    assert {("GET", "/config"), ("DELETE", "/tokens/{token}"), ("GET", "/openapi.json")} < described


def test_it_says_where_it_is_mounted(celery_app):
    app = Flask("the-users-own")
    app.register_blueprint(create_blueprint(celery_app), url_prefix="/limits")
    document = app.test_client().get("/limits/openapi.json").json
    assert document["servers"] == [{"url": "/limits"}]
    assert document["openapi"].startswith("3.1")


def test_a_change_may_name_every_field(app):
    schemas = app.test_client().get(DOCUMENT).json["components"]["schemas"]
    assert set(schemas["ConfigChange"]["properties"]) == set(Config.model_fields)
    assert set(schemas["ConfigData"]["required"]) == set(Config().to_dict())
