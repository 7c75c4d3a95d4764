"""Fair shares over HTTP, on the command line and on the page."""

from __future__ import annotations

import json

import pytest

from celery_concurrency.api.details import in_chinese
from tests.support.waiting import hold, park

PATH = "/api/v1/concurrency"


@pytest.fixture
def waits(limiter):
    """A tenant's task waits where a dimension is fair."""
    limiter.config.update({"dimensions": {"tenant": {"max": 1, "fair": True}}})
    limiter.config.update({"dimensions": {"tenant": {"weights": {"acme": 3}}}})
    tags = {"tenant": "acme"}
    hold(limiter, "holder", tags)
    return park(limiter, "waits", tags)


def test_over_http_they_are_set_merged_and_removed(english):
    for change, expected in (
        ({"fair": True}, {"fair": True}),
        ({"weights": {"acme": 3, "beta": 2}}, {"fair": True, "weights": {"acme": 3, "beta": 2}}),
        ({"weights": {"beta": None}}, {"fair": True, "weights": {"acme": 3}}),
    ):
        answer = english.put(f"{PATH}/config", json={"dimensions": {"tenant": change}})
        assert answer.json["data"]["dimensions"]["tenant"] == {
            "max": 0, "overrides": {}, **expected
        }  # fmt: skip
    answer = english.put(f"{PATH}/config", json={"fair": {"account": {}}})
    assert answer.status_code == 400
    problem = "only one dimension can be fair, not account and tenant"
    assert problem in answer.text
    assert in_chinese(problem).startswith("只能有一个维度公平分配名额")
    english.put(f"{PATH}/config", json={"dimensions": {"tenant": None}})
    answer = english.put(f"{PATH}/config", json={"fair": {"account": {"weights": {"a1": 5}}}})
    assert answer.json["data"]["fair"] == {"account": {"weights": {"a1": 5}}}
    answer = english.put(f"{PATH}/config", json={"fair": {"account": None}})
    assert "fair" not in answer.json["data"]


def test_over_http_weights_are_shown_where_names_wait(waits, english):
    usage = english.get(f"{PATH}/usage").json["data"]
    assert usage["dimensions"]["tenant"]["acme"]["weight"] == 3
    assert "weight" not in usage["global"]
    why = english.get(f"{PATH}/waiting/waits").json["data"]
    assert [one.get("weight") for one in why["limits"]] == [None, 3]


def test_names_that_only_wait_are_listed(limiter, waits, english):
    limiter.config.update({"platform_max": {"douyin": 1}})
    hold(limiter, "other", {"platform": "douyin"})
    park(limiter, "second", {"platform": "douyin", "tenant": "beta"})
    usage = english.get(f"{PATH}/usage").json["data"]
    assert usage["dimensions"]["tenant"]["beta"] == {
        "current": 0, "max": 1, "waiting": 1, "weight": 1,
        "waiting_since": usage["dimensions"]["tenant"]["beta"]["waiting_since"],
    }  # fmt: skip


def test_the_command_line_sets_and_shows_them(here, waits):
    assert "(weight 3)" in here("usage").stdout
    here("config", "set", "dimensions.tenant.weights.acme=4")
    assert json.loads(here("config", "get", "dimensions.tenant.weights").stdout) == {"acme": 4}
    here("config", "set", "dimensions.tenant.fair=false")
    here("config", "set", "fair.account.weights.a.b=5")
    assert json.loads(here("config", "get", "fair").stdout) == {"account": {"weights": {"a.b": 5}}}
    assert "weight" not in here("usage").stdout
