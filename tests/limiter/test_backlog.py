"""How many waited for each limit, minute by minute: what is stored, and what the API tells."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.stats import backlog
from celery_concurrency.limiter.stats.backlog import SAMPLES_KEPT, read_backlog
from tests.support.waiting import hold, park

URL = "/api/v1/concurrency/stats/backlog"
KEY = "concurrency:stats:backlog"


HISTORY = "concurrency:stats:history"


def minute_later(redis: Redis) -> None:
    redis.delete(HISTORY)


def test_it_is_sampled_with_each_copy_of_the_counters(
    limiter: Limiter, redis: Redis, client: FlaskClient
) -> None:
    limiter.config.update({"platform_max": {"douyin": 1}})
    token = hold(limiter, "runs", {"platform": "douyin"})
    assert limiter.stats.snapshot()
    for number in range(3):
        park(limiter, f"waits-{number}", {"platform": "douyin", "account": f"a{number % 2}"})
    # As if its copy were of a minute that is not over before the next call comes.
    [(_, copy)] = redis.xrange(HISTORY)
    redis.xadd(HISTORY, copy, id=f"{(redis.time()[0] + 600) * 1000}-0")
    assert not limiter.stats.snapshot(), "this minute has one"
    minute_later(redis)
    assert limiter.stats.snapshot()
    limiter.release(token)
    minute_later(redis)
    assert limiter.stats.snapshot()
    answer = client.get(URL).json["data"]
    assert answer["limits"] == {
        "global": [0, 3, 2],
        "platform:douyin": [0, 3, 2],
        "account:a0": [0, 2, 1],
        "account:a1": [0, 1, 1],
    }
    assert answer["at"] == sorted(answer["at"])
    assert redis.time()[0] - 60 < answer["at"][0] <= answer["at"][-1] <= redis.time()[0] + 1


def test_nothing_is_known_before_a_worker_has_looked(client: FlaskClient) -> None:
    assert client.get(URL).json["data"] == {"at": [], "limits": {}}


def test_it_has_an_hour(limiter: Limiter, redis: Redis) -> None:
    now = redis.time()[0]
    for minute in (61, 59):
        entry = {"waiting": json.dumps({"global": minute})}
        redis.xadd(KEY, entry, id=f"{(now - 60 * minute) * 1000}-0")
    assert read_backlog(limiter.keyspace).limits == {"global": [59]}
    for _ in range(SAMPLES_KEPT + 5):
        backlog.sample_backlog(limiter.keyspace)
    assert redis.xlen(KEY) == SAMPLES_KEPT


def test_what_is_beyond_the_most_is_not_taken_for_none(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LIMITS_MOST", 2)
    for waiting in ({"global": 9, "account:a": 5}, {"account:b": 1}):
        redis.xadd(KEY, {"waiting": json.dumps(waiting)})
    assert read_backlog(limiter.keyspace).limits == {"global": [9, 0], "account:a": [5, 0]}
    redis.delete(KEY)
    for waiting in ({"global": 9, "account:b": 5}, {"global": 9, "account:a": 7}):
        redis.xadd(KEY, {"waiting": json.dumps(waiting)})
    assert read_backlog(limiter.keyspace).limits == {"global": [9, 9], "account:a": [None, 7]}
