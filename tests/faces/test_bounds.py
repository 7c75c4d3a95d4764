"""Bounds on waiting over HTTP, on the command line and in the metrics."""

from __future__ import annotations

import json

import pytest

from celery_concurrency import metrics
from tests.support.waiting import hold, park

TAGS = {"account": "a", "platform": "douyin"}
BOUNDS = {"most": 5, "seconds": 600}


@pytest.fixture
def waits(limiter):
    """The ticket of a task that waits for limits with bounds."""
    limiter.config.update({"waiting": {"platform:douyin": BOUNDS}})
    hold(limiter, "holder", TAGS)
    return park(limiter, "waits", TAGS)


def test_over_http_they_are_set_merged_and_removed(english):
    path = "/api/v1/concurrency/config"
    for change, expected in (
        ({"account:*": BOUNDS}, {"account:*": BOUNDS}),
        ({"account:*": {"most": None}}, {"account:*": {"seconds": 600}}),
        ({"account:*": None}, None),
    ):
        answer = english.put(path, json={"waiting": change})
        assert answer.json["data"].get("waiting") == expected
    answer = english.put(path, json={"waiting": {"account:*": {"most": 0}}})
    assert answer.status_code == 400
    [detail] = answer.json["error"]["details"]
    assert detail["field"] == "waiting.account:*.most"


def test_over_http_it_is_shown_how_many_may_wait_and_until_when(waits, english):
    usage = english.get("/api/v1/concurrency/usage").json["data"]
    assert usage["platforms"]["douyin"]["bounds"] == BOUNDS
    why = english.get("/api/v1/concurrency/waiting/waits").json["data"]
    [one] = english.get("/api/v1/concurrency/waiting").json["data"]["waiting"]
    for found in (why, one):
        assert found["given_up_at"] == pytest.approx(waits.asked + 600)


def test_the_command_line_sets_and_shows_them(here, waits):
    done = here("config", "set", 'waiting.account:*={"most": 9}')
    assert "waiting.account:*" in done.stderr
    assert json.loads(here("config", "get", "waiting").stdout)["account:*"] == {"most": 9}
    assert "1 of 5" in here("usage").stdout
    assert "given up at" in here("waiting").stdout
    assert ", and is given up at 20" in here("waiting", "waits").stdout
    here("config", "set", "waiting.account:*=null", "waiting.platform:douyin=null")
    assert "given up at" not in here("waiting").stdout


def test_the_metrics_count_who_was_refused_and_given_up(limiter, redis, waits):
    redis.hset("concurrency:stats:counters", mapping={"crowded:total": 3, "overdue:total": 2})
    lines = metrics.expose(limiter).decode().splitlines()
    assert (
        'celery_concurrency_waiting_max{dimension="platform",limit="platform:douyin"} 5.0' in lines
    )
    assert sum(line.startswith("celery_concurrency_waiting_max{") for line in lines) == 1
    for line in ("crowded_total{%s} 3.0", "overdue_total{%s} 2.0"):
        assert f"celery_concurrency_{line}" % 'dimension="global",limit="global"' in lines
