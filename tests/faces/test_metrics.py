"""Metrics for Prometheus: what they say, that they are well formed, and who may read them."""

from __future__ import annotations

import re
import sys

import pytest
from celery import Celery
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from celery_concurrency import metrics
from celery_concurrency.api import URL_PREFIX, create_app, create_blueprint
from celery_concurrency.api.access import bearer
from celery_concurrency.limiter import Limiter, keyspace
from celery_concurrency.limiter.inspect import counts, usage
from celery_concurrency.limiter.stats.durations import BOUNDS
from tests.support import scenes
from tests.support.floor import Floor

URL = f"{URL_PREFIX}/metrics"
TAGS = {"platform": "douyin", "type": "publish", "account": "secret"}
ADAPTIVE = {"min": 1, "max": 9}
#: Names of units that have a base unit, which is what metrics are to be given in.
NO_BASE_UNITS = "milliseconds|ms|minutes|hours|days|percent|kilobytes|megabytes"


def families(text: str) -> dict[str, object]:
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found), "a family twice"
    return {family.name: family for family in found}


def value(limiter: Limiter, name: str, limit: str | None = None, **options: bool) -> float | None:
    """Return one sample of what is exposed now; None where it is not there."""
    for family in families(metrics.expose(limiter, **options).decode()).values():
        for sample in family.samples:
            if sample.name == f"celery_concurrency_{name}" and sample.labels.get("limit") == limit:
                return sample.value
    return None


@pytest.fixture
def busy(limiter: Limiter, redis: Redis) -> Floor:
    """Something of everything: runs, waiters, an end, a pause."""
    limiter.config.update({"account_max": 1, "platform_max": {"douyin": 3}})
    floor = Floor(limiter, redis)
    floor.hold("running", **TAGS)
    floor.wait("waits", **TAGS)
    floor.wait("waits too", account="secret")
    limiter.release(floor.hold("ended", platform="bilibili", account="b"))
    limiter.durations.tally()
    limiter.config.pause("platform:bilibili")
    return floor


def test_the_gauges_say_what_goes_on(busy: Floor, limiter: Limiter) -> None:
    expected = {
        ("current", "global"): 1,
        ("current", "platform:douyin"): 1,
        ("max", "platform:douyin"): 3,
        ("max", "global"): 0,
        ("paused", "platform:bilibili"): 1,
        ("paused", "platform:douyin"): 0,
        ("waiting", "global"): 2,
        ("waiting", "platform:douyin"): 1,
        ("waiting", "task_type:publish"): 1,
        ("waiting", "platform:bilibili"): 0,
        ("oldest_wait_seconds", "platform:bilibili"): 0,
        ("waiting_uncounted_groups", None): 0,
        ("enabled", None): 1,
        ("config_invalid", None): 0,
        ("config_version", None): limiter.config.sync().version,
    }
    assert {name: value(limiter, *name) for name in expected} == expected
    assert 0 < value(limiter, "oldest_wait_seconds", "platform:douyin") < 60


def test_the_oldest_wait_is_that_of_the_first_of_any_group(
    busy: Floor, limiter: Limiter, redis: Redis
) -> None:
    """Of each group only the ticket of its first waiter is read."""
    for group, ticket in redis.zrange("concurrency:groups", 0, -1, withscores=True):
        before = 7_200_000 if "douyin" in group else 3_600_000
        redis.zadd("concurrency:groups", {group: ticket - before})
    assert 7200 <= value(limiter, "oldest_wait_seconds", "global") < 7260
    assert 7200 <= value(limiter, "oldest_wait_seconds", "platform:douyin") < 7260
    since = limiter.usage().global_.waiting_since
    assert since == pytest.approx(redis.time()[0] - 7200, abs=60)


def test_a_priority_does_not_count_as_time(limiter: Limiter, redis: Redis) -> None:
    floor = Floor(limiter, redis)
    floor.hold("running", account="a")
    floor.wait("low", rank=9, account="a")
    assert 0 < value(limiter, "oldest_wait_seconds", "global") < 60


def test_the_counters_are_those_of_all_time(busy: Floor, limiter: Limiter) -> None:
    expected = {
        ("acquired_total", "global"): 2,
        ("acquired_total", "platform:douyin"): 1,
        ("acquired_total", "task_type:publish"): 1,
        ("denied_total", "global"): 2,
        ("denied_total", "platform:douyin"): 1,
        ("released_total", None): 1,
        ("parked_total", None): 2,
        ("handed_over_total", None): 0,
        **{
            (f"{name}_total", None): 0
            for name in ("expired", "reclaimed", "lost", "lapsed", "cancelled")
        },
    }
    assert {name: value(limiter, *name) for name in expected} == expected


def test_the_histograms_are_those_of_all_time(busy: Floor, limiter: Limiter) -> None:
    text = metrics.expose(limiter).decode()
    for kind in ("wait", "hold"):
        family = families(text)[f"celery_concurrency_{kind}_seconds"]
        samples = [s for s in family.samples if s.labels["limit"] == "platform:bilibili"]
        buckets = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
        assert [float(le) for le in buckets] == [*(b / 1000 for b in BOUNDS), float("inf")]
        assert list(buckets.values()) == sorted(buckets.values())
        count = next(s.value for s in samples if s.name.endswith("_count"))
        assert count == buckets["+Inf"] == 1
        assert next(s.value for s in samples if s.name.endswith("_sum")) < 60


def test_workers_are_counted_by_how_their_tasks_wait(limiter: Limiter) -> None:
    limiter.config.sync()
    scenes.fleet(limiter)
    # Heard of later than now: else a slow machine finds them silent.
    for name in ("w1@h", "w2@h"):
        key = limiter.keyspace.keys.worker(name)
        limiter.redis.hset(key, "heard", limiter.keyspace.now() + 600)
    scenes.beat(limiter, "w4@h", mode="retry", silent=-600)
    scenes.beat(limiter, "w5@h", mode=None, silent=-600)
    text = metrics.expose(limiter).decode()
    for mode, count in (("handoff", 1), ("retry", 2), ("unknown", 1)):
        assert f'celery_concurrency_workers{{mode="{mode}"}} {count}.0\n' in text
    assert "celery_concurrency_workers_silent 1.0\n" in text


def test_how_long_ago_a_sweep_was(limiter: Limiter) -> None:
    assert value(limiter, "sweep_age_seconds") is None
    limiter.waiting_room.sweep()
    assert value(limiter, "sweep_age_seconds") == pytest.approx(0, abs=25)
    limiter.redis.set("concurrency:sweep:next", limiter.redis.time()[0] - 59)
    assert value(limiter, "sweep_age_seconds") == pytest.approx(60, abs=25)


def test_a_configuration_written_by_hand_that_is_not_valid_shows(limiter: Limiter) -> None:
    version = value(limiter, "config_version")
    limiter.redis.set("concurrency:config", "{not json")
    assert value(limiter, "config_invalid") == 1
    assert value(limiter, "config_version") > version
    limiter.config.update({"enabled": False})
    assert (value(limiter, "config_invalid"), value(limiter, "enabled")) == (0, 0)


def test_accounts_are_there_only_where_they_are_asked_for(
    busy: Floor, limiter: Limiter, client: FlaskClient
) -> None:
    assert b"secret" not in client.get(URL).data
    with_accounts = client.get(URL, query_string={"accounts": "1"}).text
    assert 'celery_concurrency_waiting{dimension="account",limit="account:secret"} 2.0' in (
        with_accounts.splitlines()
    )
    assert client.get(URL, query_string={"accounts": "some"}).status_code == 400


def test_accounts_are_bounded_to_those_with_most_tasks(
    busy: Floor, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy.hold("other", account="a")
    monkeypatch.setattr(metrics, "MAX_ACCOUNTS", 1)
    assert value(limiter, "waiting", "account:secret", accounts=True) == 2
    assert value(limiter, "current", "account:a", accounts=True) is None


def test_own_dimensions_are_there_as_far_as_the_configuration_names_them(
    limiter: Limiter, redis: Redis
) -> None:
    limiter.config.update({"dimensions": {"tenant": {"max": 9, "overrides": {"named": 5}}}})
    floor = Floor(limiter, redis)
    floor.hold("a", tenant="named")
    floor.hold("b", tenant="one of a million")
    assert value(limiter, "current", "tenant:named") == 1
    assert value(limiter, "max", "tenant:named") == 5
    assert value(limiter, "current", "tenant:one of a million") is None
    assert value(limiter, "current", "tenant:one of a million", accounts=True) == 1


def test_rates_and_cool_downs(limiter: Limiter, redis: Redis) -> None:
    rates = [{"max": 1, "per": 30}, {"max": 2, "per": 30}, {"max": 9, "per": 600}]
    limiter.config.update(
        {"account_max": 0, "rates": {"platform:douyin": rates, "account:*": rates}}
    )
    floor = Floor(limiter, redis)
    limiter.release(floor.hold(**TAGS))
    floor.wait("waits", **TAGS)
    floor.hold("other", platform="bilibili")
    limiter.cooldowns.set("platform:bilibili", 100)
    text = metrics.expose(limiter).decode()
    assert "secret" not in text
    found = families(text)

    def samples(name: str) -> dict[tuple[str, ...], float]:
        family = found[f"celery_concurrency_{name}"]
        return {
            (one.labels["limit"], *([one.labels["per"]] if "per" in one.labels else [])): one.value
            for one in family.samples
        }

    assert samples("rate_used") == {("platform:douyin", "30"): 1, ("platform:douyin", "600"): 1}
    assert samples("rate_max") == {("platform:douyin", "30"): 1, ("platform:douyin", "600"): 9}
    opens = samples("opens_in_seconds")
    assert 5 < opens["platform:douyin",] <= 30
    assert 75 < opens["platform:bilibili",] <= 100
    assert samples("cooldown_seconds").keys() == {("platform:bilibili",)}
    assert value(limiter, "waiting_for_moment") == 1
    assert "account:secret" in metrics.expose(limiter, accounts=True).decode()
    floor.age(30)
    assert value(limiter, "opens_in_seconds", "platform:douyin") == 0


def test_rates_are_given_as_far_as_there_is_room(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = [{"max": 1, "per": 30}]
    limiter.config.update({"rates": {f"platform:{n}": rate for n in range(10)}})
    monkeypatch.setattr(metrics, "MOMENTS_BYTES", 3 * metrics.MOMENTS_LINES * 110)
    found = families(metrics.expose(limiter).decode())
    assert len(found["celery_concurrency_rate_used"].samples) == 3
    assert value(limiter, "limits_left_out") == 7
    assert value(limiter, "max", "platform:9") == 0


def test_adaptive_limits_and_refusals(limiter: Limiter) -> None:
    scenes.refused(limiter)
    limiter.config.update({"platform_max": {"douyin": 3}, "adaptive": {"account:*": ADAPTIVE}})
    assert value(limiter, "adaptive_limit", "platform:bilibili") == 4
    assert value(limiter, "max", "platform:bilibili") == 0
    # Observed, it turns nobody away; what it would allow is given.
    assert value(limiter, "adaptive_limit", "task_type:publish") == 20
    assert value(limiter, "adaptive_limit", "platform:douyin") is None
    limiter.config.update({"adaptive": {"platform:douyin": ADAPTIVE}})
    assert value(limiter, "adaptive_limit", "platform:douyin") == 3
    limiter.config.pause("platform:douyin")
    assert value(limiter, "adaptive_limit", "platform:douyin") == 3
    limiter.config.update({"platform_max": {"douyin": ADAPTIVE["max"] + 1}})
    assert value(limiter, "adaptive_limit", "platform:douyin") == ADAPTIVE["max"]
    assert value(limiter, "refused_total", "global") == 2
    assert value(limiter, "refused_total", "platform:bilibili") == 2
    text = metrics.expose(limiter).decode()
    assert "account:" not in text
    assert "account:tried" in metrics.expose(limiter, accounts=True).decode()


def test_what_waits_is_counted_up_to_a_bound(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (counts, usage):
        monkeypatch.setattr(module, "MAX_GROUPS", 4)
    for module in (keyspace, counts):
        monkeypatch.setattr(module, "BATCH", 3)
    floor = Floor(limiter, redis)
    for number in range(7):
        floor.hold("holder", account=str(number))
        floor.wait(f"task{number}", account=str(number))
    assert value(limiter, "waiting", "global") == 4
    assert value(limiter, "waiting_uncounted_groups") == 3


def test_a_limit_may_have_any_name(limiter: Limiter) -> None:
    name = 'a"b\\c d 抖音'
    limiter.try_acquire("1", {"platform": name})
    assert value(limiter, "current", f"platform:{name}") == 1


def test_it_is_well_formed_as_promtool_would_have_it(busy: Floor, limiter: Limiter) -> None:
    limiter.waiting_room.sweep()
    text = metrics.expose(limiter, accounts=True).decode()
    assert text.endswith("\n")
    for family in families(text).values():
        name, kind = family.name, family.type
        assert re.fullmatch(r"celery_concurrency_[a-z_]+[a-z]", name)
        assert family.documentation.endswith("."), f"{name} has no help"
        assert not re.search(rf"_({NO_BASE_UNITS})(_|$)", name), f"{name}: base units"
        assert not re.search("_(gauge|counter|histogram|summary)(_|$)", name), f"{name}: its type"
        assert kind == "histogram" or not name.endswith(("_count", "_sum", "_bucket"))
        for sample in family.samples:
            assert sample.name.endswith("_total") == (kind == "counter"), sample.name
            assert set(sample.labels) <= {"dimension", "limit", "le", "per", "mode"}
            assert ("le" in sample.labels) == sample.name.endswith("_bucket")
            assert sample.value >= 0
        seen = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(seen) == len(set(seen)), f"{name}: a sample twice"


@pytest.mark.parametrize("path", [URL, "/metrics"])
def test_prometheus_finds_them_at_both_paths(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.text.startswith("# HELP celery_concurrency_")
    assert client.post(path).status_code == 405


@pytest.mark.parametrize("path", [URL, "/metrics"])
def test_they_are_behind_the_same_checks(celery_app: Celery, path: str) -> None:
    """The token that only reads is enough."""
    closed = create_app(celery_app, bearer("all", "read")).test_client()
    assert closed.get(path).status_code == 401
    for token, status in (("all", 200), ("read", 200), ("other", 401)):
        headers = {"Authorization": f"Bearer {token}"}
        assert closed.get(path, headers=headers).status_code == status
    on_loopback = create_app(celery_app, loopback=True).test_client()
    assert on_loopback.get(path, headers={"Host": "evil.example"}).status_code == 403


def test_the_users_own_app_is_left_its_root(celery_app: Celery) -> None:
    app = Flask("the-users-own")
    app.register_blueprint(create_blueprint(celery_app))
    assert app.test_client().get("/metrics").status_code == 404
    assert app.test_client().get(URL).status_code == 200


@pytest.mark.parametrize("path", [URL, "/metrics"])
def test_without_the_extra_it_says_what_to_install(
    client: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "celery_concurrency.metrics")
    monkeypatch.delattr("celery_concurrency.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    response = client.get(path)
    assert response.status_code == 501
    assert response.json["error"]["code"] == "extra_missing"
    assert "celery-concurrency[prometheus]" in response.json["error"]["details"][0]["problem"]


def test_without_redis_there_is_no_half_of_it(celery_app: Celery) -> None:
    away = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    assert create_app(away).test_client().get("/metrics").status_code == 503
