"""The statistics interval by interval: on the limiter's floor, by API and by command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from flask.testing import FlaskClient
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.stats.durations import INTERVAL
from celery_concurrency.limiter.stats.history import StatsHistory, read_stats_history

URL = "/api/v1/concurrency/stats/history"
COUNTERS = "concurrency:stats:counters"
TIMES = "concurrency:stats:times"
ZERO = {"acquired:total": 0, "released:total": 0}


@pytest.fixture
def now(limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> int:
    """The middle of this minute, at which time stands still for who reads the history."""
    now = redis.time()[0] // 60 * 60 + 30
    monkeypatch.setattr(limiter.keyspace, "now", lambda: float(now))
    return now


def keep(redis: Redis, at: float, **counters: int) -> None:
    """Put a copy of the counters into the history, as it was made at a time."""
    text = json.dumps({name.replace("_", ":"): str(count) for name, count in counters.items()})
    redis.xadd("concurrency:stats:history", {"counters": text}, id=f"{int(at * 1000)}-0")


def read(limiter: Limiter, resolution: str, window: str = "1h") -> StatsHistory:
    return read_stats_history(limiter.keyspace, resolution, window)


@pytest.mark.parametrize(("window", "hours"), [("1h", 1), ("6h", 6), ("24h", 24)])
@pytest.mark.parametrize(("resolution", "step"), [("1m", 60), ("5m", 300), ("1h", 3600)])
def test_there_is_a_point_for_each_interval_and_the_last_is_going_on(
    limiter: Limiter, now: int, resolution: str, step: int, window: str, hours: int
) -> None:
    found = read(limiter, resolution, window)
    assert found.resolution == step
    assert [point.at % step for point in found.points] == [0] * len(found.points)
    assert found.points[-1].at <= now < found.points[-1].at + step
    assert found.points[0].at <= now - hours * 3600 < found.points[0].at + step
    assert len(found.points) == hours * 3600 / step + 1
    assert all(point.counters == ZERO for point in found.points)
    assert not any(point.wait or point.hold for point in found.points)


def test_counters_are_those_of_each_interval(limiter: Limiter, redis: Redis, now: int) -> None:
    minute = now // 60 * 60
    keep(redis, minute - 2 * 86_400, acquired_total=1)
    keep(redis, minute - 180 + 0.7, acquired_total=10, denied_total=4)
    keep(redis, minute - 120 + 0.2, acquired_total=13, denied_total=4)
    # Nobody was there at the full minute in between.
    keep(redis, minute + 0.1, acquired_total=20, denied_total=5)
    redis.hset(COUNTERS, mapping={"acquired:total": 21, "released:total": 1, "denied:total": 5})
    points = read(limiter, "1m").points
    assert [point.counters for point in points[-5:]] == [
        {"acquired:total": 9, "released:total": 0, "denied:total": 4},
        {"acquired:total": 3, "released:total": 0},
        ZERO,
        {"acquired:total": 7, "released:total": 0, "denied:total": 1},
        {"acquired:total": 1, "released:total": 1},
    ]
    assert sum(point.counters["acquired:total"] for point in points) == 20
    for resolution in ("5m", "1h"):
        whole = sum(point.counters["acquired:total"] for point in read(limiter, resolution).points)
        assert whole == 20


def test_it_says_since_when_there_is_one(limiter: Limiter, redis: Redis, now: int) -> None:
    assert read(limiter, "1m").since is None
    keep(redis, now - 300, acquired_total=0)
    keep(redis, now - 240, acquired_total=3)
    assert read(limiter, "1m").since == now - 300
    assert read(limiter, "5m", "24h").since == now - 300


def test_counters_that_an_operator_deleted_are_never_negative(
    limiter: Limiter, redis: Redis, now: int
) -> None:
    keep(redis, now - 300, acquired_total=1000)
    redis.hset(COUNTERS, "acquired:total", 3)
    counted = [point.counters["acquired:total"] for point in read(limiter, "5m").points]
    assert min(counted) >= 0
    assert counted[-1] + counted[-2] >= 3


def test_all_copies_of_a_day_are_read(limiter: Limiter, redis: Redis, now: int) -> None:
    minute = now // 60 * 60
    for number in range(1500, -1, -1):
        keep(redis, minute - number * 60 + 0.5, acquired_total=2 * (1500 - number))
    redis.hset(COUNTERS, "acquired:total", 2 * 1500)
    counted = [point.counters["acquired:total"] for point in read(limiter, "1m", "24h").points]
    assert counted == [*[2] * 1440, 0]


def test_percentiles_are_those_of_each_interval(limiter: Limiter, redis: Redis, now: int) -> None:
    start = now // INTERVAL * INTERVAL
    redis.hset(f"{TIMES}:{start}", mapping={"wait 0 global": 1, "wait sum global": 0})
    redis.hset(
        f"{TIMES}:{start - INTERVAL}",
        mapping={"wait 1000 global": 98, "wait 5000 global": 2, "hold 10 platform:douyin": 1},
    )
    redis.zadd("concurrency:stats:named", {"platform:douyin": now})
    points = read(limiter, "5m").points
    assert points[-1].wait["global"].model_dump() == {"count": 1, "p50": 0, "p95": 0, "p99": 0}
    assert points[-1].hold == {}
    wait = points[-2].wait["global"]
    assert wait.count == 100
    # 98 are spread over 0.5 to 1 s, the last bucket's two over 2.5 to 5 s.
    assert 0.5 < wait.p50 < wait.p95 < 1
    assert wait.p99 == pytest.approx(3.75)
    assert points[-2].hold["platform:douyin"].p50 == pytest.approx(0.005)
    by_hour = read(limiter, "1h").points
    assert sum(point.wait["global"].count for point in by_hour if point.wait) == 101


def test_what_really_ran_is_in_it(limiter: Limiter, client: FlaskClient) -> None:
    limiter.try_acquire("a", {"platform": "douyin", "account": "secret"})
    limiter.release("a")
    limiter.durations.tally()
    answer = client.get(URL, query_string={"resolution": "5m", "window": "1h"}).json
    assert answer["success"] is True
    points = answer["data"]["points"]
    assert sum(point["counters"].get("acquired:platform:douyin", 0) for point in points) == 1
    [point] = [point for point in points if point["wait"]]
    assert set(point["wait"]) == set(point["hold"]) == {"global", "platform:douyin"}
    assert point["wait"]["global"] == {"count": 1, "p50": 0.0, "p95": 0.0, "p99": 0.0}


def test_what_is_asked_for_by_default(client: FlaskClient) -> None:
    data = client.get(URL).json["data"]
    assert (data["resolution"], len(data["points"])) == (300, 289)


@pytest.mark.parametrize("query", [{"resolution": "2m"}, {"window": "total"}, {"window": "7d"}])
def test_other_resolutions_and_windows_are_refused(
    client: FlaskClient, query: dict[str, str]
) -> None:
    response = client.get(URL, query_string=query)
    assert response.status_code == 400
    [detail] = response.json["error"]["details"]
    assert detail["field"] == next(iter(query))


def test_the_command_line_shows_it(limiter: Limiter, here: Callable[..., CompletedProcess]) -> None:
    limiter.try_acquire("a", {"platform": "douyin"})
    # Half an hour ago, as it were.
    since = float(limiter.redis.hget("concurrency:token:a", "since"))
    limiter.redis.hset("concurrency:token:a", "since", f"{since - 1750:.6f}")
    limiter.release("a")
    limiter.durations.tally()
    done = here("stats", "--history", "--window", "1h", "--resolution", "5m")
    head, *rows = done.stdout.splitlines()
    assert head.split()[:4] == ["from", "acquired", "released", "denied"]
    assert len(rows) == 13
    assert any("0 s" in row for row in rows)
    [held] = re.findall(r"(\d+) s$", done.stdout, re.MULTILINE)
    assert 1000 < int(held) <= 1800, "in figures"
    found = json.loads(here("stats", "--history", "--json").stdout)
    assert found["resolution"] == 300
    assert len(found["points"]) == 289


def test_the_command_line_refuses_a_history_of_all_time(
    here: Callable[..., CompletedProcess],
) -> None:
    done = here("stats", "--history", "--window", "total")
    assert done.returncode == 2
    assert "1h, 6h or 24h" in done.stderr
