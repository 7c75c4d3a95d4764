"""Limits that are only observed, as users see them: over HTTP, on the command line, in metrics."""

from __future__ import annotations

import json
import re

import pytest

from celery_concurrency import metrics
from tests.faces.test_metrics import families
from tests.support.answers import out, refusal
from tests.support.floor import Floor

BASE = "/api/v1/concurrency"
RATES = [{"max": 1, "per": 30, "mode": "observe"}, {"max": 15, "per": 86_400}]


@pytest.fixture
def watched(limiter, redis):
    """An observed maximum, of which two runs of three would have had to wait, and a rate."""
    limiter.config.update(
        {
            "account_max": 0,
            "platform_max": {"douyin": {"max": 1, "mode": "observe"}},
            "rates": {"account:*": RATES},
        }
    )
    floor = Floor(limiter, redis)
    tokens = [floor.hold(platform="douyin", account=f"a{n}") for n in range(3)]
    for token in tokens:
        limiter.release(token)
    return floor


def test_usage_tells_it_beside_what_is_in_force(client, watched):
    data = client.get(f"{BASE}/usage").json["data"]
    assert data["platforms"]["douyin"] == {"current": 0, "max": 0, "observed_max": 1}
    maximum, rates = data["observed"]
    assert maximum.pop("since") > 0
    waits = maximum.pop("would_wait")
    assert 0 < waits["mean"] < waits["longest"] < waits["total"] < 60
    assert maximum == {
        "limit": "platform:douyin", "kind": "max", "max": 1, "rates": [], "runs": 3,
        "would_deny": 2,
    }  # fmt: skip
    assert (rates["limit"], rates["kind"], rates["max"]) == ("account:*", "rates", None)
    assert (rates["rates"], rates["runs"], rates["would_deny"]) == (RATES[:1], 3, 0)


def test_usage_says_nothing_where_nothing_is_observed(client):
    assert "observed" not in client.get(f"{BASE}/usage").json["data"]


def test_one_change_puts_it_in_force(client, watched):
    answer = client.put(f"{BASE}/config", json={"platform_max": {"douyin": {"mode": "enforce"}}})
    assert answer.json["data"]["platform_max"]["douyin"] == 1
    answer = client.put(f"{BASE}/config", json={"platform_max": {"douyin": {"mode": "observe"}}})
    assert answer.json["data"]["platform_max"]["douyin"] == {"max": 1, "mode": "observe"}
    [one, _] = client.get(f"{BASE}/usage").json["data"]["observed"]
    assert (one["runs"], one["since"]) == (0, None)


@pytest.mark.usefixtures("english")
def test_a_mistake_names_its_field(client):
    change = {"platform_max": {"douyin": {"max": 1, "mode": "obsreve"}}}
    answer = client.put(f"{BASE}/config", json=change)
    assert answer.status_code == 400
    assert answer.json["error"]["details"] == [
        {"field": "platform_max.douyin.mode", "problem": "Input should be 'enforce' or 'observe'"}
    ]


def test_the_command_line_lists_it_and_puts_it_in_force(here, limiter, watched):
    text = out(here("observed"))
    assert text.splitlines()[0].split("  ")[0] == "observed"
    assert "platform:douyin" in text
    assert "2 (67%)" in text
    assert "1 per 30 s" in text
    assert text.strip() in out(here("usage"))
    found = json.loads(out(here("observed", "--json")))
    assert [(one["limit"], one["would_deny"]) for one in found] == [
        ("platform:douyin", 2), ("account:*", 0),
    ]  # fmt: skip
    assert "in force now" in out(here("enforce", "platform:douyin", "--operator", "张三"))
    assert limiter.config.sync().config.platform_max["douyin"] == 1
    assert limiter.config.history()[0].operator == "张三"
    shown = json.loads(out(here("enforce", "account:*", "--json")))
    assert shown["rates"]["account:*"] == [{"max": 1, "per": 30}, RATES[1]]
    assert json.loads(out(here("observed", "--json"))) == []
    assert "observed" not in out(here("usage"))
    assert "has nothing observed; observed are: nothing" in refusal(here("enforce", "global"))


def test_an_adaptive_one_is_listed_and_put_in_force_too(here, limiter, redis):
    entry = {"min": 1, "max": 1, "mode": "observe"}
    limiter.config.update({"account_max": 0, "adaptive": {"platform:*": entry}})
    floor = Floor(limiter, redis)
    for token in [floor.hold(platform="douyin", account=f"a{n}") for n in range(3)]:
        limiter.release(token)
    assert re.search(r"platform:\*  up to 1 \(adaptive\)  3 +2 \(67%\)", out(here("observed")))
    assert "in force now" in out(here("enforce", "platform:*"))
    assert limiter.config.sync().config.adaptive["platform:*"].mode == "enforce"


def test_config_set_observes_and_ends_it(here, limiter, watched):
    out(here("config", "set", 'platform_max.bilibili={"max": 4, "mode": "observe"}'))
    out(here("config", "set", 'global_max={"max": 4, "mode": "observe"}'))
    assert limiter.config.sync().config.observed_max_of("platform:bilibili") == 4
    assert json.loads(out(here("config", "get", "global_max"))) == {"max": 4, "mode": "observe"}
    out(here("config", "set", "platform_max.bilibili=2", "rates.global=2/1m:observe,9/1d"))
    config = limiter.config.sync().config
    assert config.max_of("platform:bilibili") == 2
    assert config.to_dict()["rates"]["global"] == [
        {"max": 2, "per": 60, "mode": "observe"}, {"max": 9, "per": 86_400},
    ]  # fmt: skip


def name_of(sample):
    what = sample.name.removeprefix("celery_concurrency_observed_")
    return what, sample.labels["limit"], sample.labels["kind"]


def samples(limiter, **options):
    """Return what each counter of observed limits says, by limit and kind."""
    return {
        name_of(sample): sample.value
        for family in families(metrics.expose(limiter, **options).decode()).values()
        for sample in family.samples
        if sample.name.startswith("celery_concurrency_observed_")
    }


def test_metrics_count_it(limiter, watched):
    found = samples(limiter)
    assert found["runs_total", "platform:douyin", "max"] == 3
    assert found["denied_total", "platform:douyin", "max"] == 2
    assert 0 < found["wait_seconds_total", "platform:douyin", "max"] < 60
    assert found["runs_total", "account:*", "rates"] == 3


def test_an_account_has_no_label_unless_it_is_asked_for(limiter):
    limiter.config.update({"account_overrides": {"vip": {"max": 1, "mode": "observe"}}})
    assert samples(limiter) == {}
    assert samples(limiter, accounts=True)["runs_total", "account:vip", "max"] == 0


def test_of_very_many_the_answer_stays_small(limiter):
    names = {f"{'x' * 190}{number}": {"max": 1, "mode": "observe"} for number in range(1200)}
    limiter.config.update({"platform_max": names})
    found = limiter.usage()
    assert (len(found.observed), found.unlisted_observed) == (1000, 200)
    assert "200 more are observed but not listed" in list(found.notes())
    text = metrics.expose(limiter)
    assert sum(len(line) for line in text.splitlines() if b"observed_" in line) < 400_000
