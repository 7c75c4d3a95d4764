"""What people and monitoring ask for, where 100,000 names are in each key: bounded all the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from subprocess import CompletedProcess
from typing import Final

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from celery_concurrency import metrics
from celery_concurrency.api import URL_PREFIX
from celery_concurrency.cli.monitor import LineView
from celery_concurrency.cli.snapshot import Snapshot
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.inspect.counts import MAX_GROUPS
from celery_concurrency.limiter.inspect.usage import MAX_CONFIGURED, MAX_TOKENS
from celery_concurrency.limiter.stats.durations import BOUNDS, INTERVAL
from celery_concurrency.limiter.stats.history import LIMITS_MOST
from celery_concurrency.scripts.constants import NAMED_MOST
from celery_concurrency.testing.server import Server

MANY: Final = 100_000
CONFIGURED: Final = 45_000
MEGABYTE: Final = 1_000_000


def count(redis: Redis, key: str, fields: Iterable[str], value: int) -> None:
    """Give so many fields of a hash a value, many in a command."""
    left = iter(fields)
    while some := list(islice(left, 5000)):
        redis.hset(key, mapping=dict.fromkeys(some, value))


def fill_statistics(redis: Redis, name: Callable[[int], str]) -> None:
    """All names that there is room for, each with all that can be counted of it, and more."""
    now = redis.time()[0]
    counters, times = "concurrency:stats:counters", "concurrency:stats:times"
    interval = f"{times}:{now // INTERVAL * INTERVAL}"
    named = [f"platform:{name(number)}" for number in range(2 * NAMED_MOST)]
    redis.zadd("concurrency:stats:named", dict.fromkeys(named, now))
    buckets = [*BOUNDS, "inf", "sum"]
    fields = [f"{kind} {bucket}" for kind in ("wait", "hold") for bucket in buckets]
    for key in (times, interval):
        count(redis, key, (f"{one} {limit}" for one in fields for limit in named), 2)
        count(redis, key, (f"wait 0 platform:stale{number}" for number in range(MANY)), 1)
    for what in ("acquired", "denied"):
        count(redis, counters, (f"{what}:{limit}" for limit in named), 3)
    count(redis, counters, (f"acquired:platform:stale{number}" for number in range(MANY)), 1)
    copy = json.dumps({f"acquired:platform:stale{number}": "1" for number in range(MANY)})
    redis.xadd("concurrency:stats:history", {"counters": copy}, id=f"{(now - 600) * 1000}-0")


#: From this number up to that one all hold until then, and as many wait, each with its own names.
ROOM: Final = """
for n = ARGV[1], ARGV[2] - 1 do
  local limits = string.format('["global", "platform:p%d", "account:a%d"]', n, n)
  redis.call('ZADD', 'concurrency:leases', ARGV[3], 't' .. n)
  redis.call('HSET', 'concurrency:token:t' .. n, 'limits', limits)
  redis.call('ZADD', 'concurrency:semaphore:global', ARGV[3], 't' .. n)
  redis.call('ZADD', 'concurrency:semaphore:platform:p' .. n, ARGV[3], 't' .. n)
  redis.call('ZADD', 'concurrency:groups', n, limits)
  redis.call('ZADD', 'concurrency:group:' .. limits, n, 'w' .. n)
end
"""


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A server that is filled once, for all of these tests: they only look."""
    with Server() as server, closing(connect(server.url())) as client:
        limiter = Limiter(client)
        limiter.config.update({"platform_max": {f"tenant-{n}": 3 for n in range(CONFIGURED)}})
        fill_statistics(client, lambda number: f"tenant-{number}")
        for begin in range(0, MANY, 2000):
            client.eval(ROOM, 0, begin, begin + 2000, client.time()[0] + 80_000)
        yield server.url()


def processor(redis: Redis) -> float:
    """Return the seconds that the server has computed."""
    info = redis.info("cpu")
    return float(info["used_cpu_sys"] + info["used_cpu_user"])


def samples_of(text: str) -> dict[tuple[str, str | None], float]:
    """Return the samples of an answer by their name and limit."""
    return {
        (sample.name, sample.labels.get("limit")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("query", ["", "?accounts=1"])
def test_metrics_answer_within_a_second_and_five_megabytes(
    client: FlaskClient, redis: Redis, query: str
) -> None:
    # The CPU time of both processes, over that of reading the answer: 1.4 to 1.9 when this was
    # written, on machines that took 0.9 to 1.6 s. Once has to be enough, of five times at most.
    ratios: list[float] = []
    while len(ratios) < 5 and min(ratios, default=3) >= 3:
        begin = time.process_time() + processor(redis)
        answer = client.get(f"/metrics{query}")
        wrote = time.process_time() + processor(redis)
        samples = samples_of(answer.text)
        ratios.append((wrote - begin) / (time.process_time() + processor(redis) - wrote))
    assert answer.status_code == 200
    assert len(answer.data) < 5 * MEGABYTE
    assert min(ratios) < 3
    assert samples["celery_concurrency_current", "global"] == MANY
    assert samples["celery_concurrency_limits_left_out", None] > CONFIGURED - MAX_CONFIGURED
    assert samples["celery_concurrency_statistics_full", None] == 1
    # What is left out is among the others, whatever is: no run is missing.
    for name, each in (("acquired_total", 3), ("hold_seconds_count", 2 * (len(BOUNDS) + 1))):
        by_limit = [
            count
            for (sample, limit), count in samples.items()
            if sample == f"celery_concurrency_{name}" and limit != "global"
        ]
        assert sum(by_limit) == each * 2 * NAMED_MOST
    assert samples["celery_concurrency_acquired_total", "other/platform"] > 0


def test_names_may_be_as_long_as_they_can() -> None:
    with Server() as server, closing(connect(server.url())) as client:
        fill_statistics(client, lambda number: f"{number:04}" + "\N{GRINNING FACE}" * 196)
        answer = metrics.expose(Limiter(client))
    assert len(answer) < 5 * MEGABYTE
    assert b'limit="other/platform"' in answer


def test_usage_is_bounded_and_says_what_is_left_out(
    client: FlaskClient, here: Callable[..., CompletedProcess[str]]
) -> None:
    answer = client.get(f"{URL_PREFIX}/usage")
    assert len(answer.data) < 5 * MEGABYTE
    data = answer.json["data"]
    assert data["global"]["current"] == MANY
    assert data["unread_tokens"] == MANY - MAX_TOKENS
    assert data["uncounted_groups"] == MANY - MAX_GROUPS
    assert data["unlisted_limits"] >= CONFIGURED - MAX_CONFIGURED
    assert data["statistics_full"] is True
    done = here("usage")
    assert len(done.stdout) < 5 * MEGABYTE
    for note in ("more limits are configured", "more tokens", "more groups", "other/platform"):
        assert note in done.stderr


def test_the_monitor_is_bounded(limiter: Limiter, capsys: pytest.CaptureFixture[str]) -> None:
    LineView().show(Snapshot.of(limiter))
    told = capsys.readouterr()
    assert len(told.out) < 5000
    assert "more tokens" in told.err


@pytest.mark.parametrize("path", ["/stats", "/stats?window=total"])
def test_statistics_are_bounded(client: FlaskClient, path: str) -> None:
    answer = client.get(f"{URL_PREFIX}{path}")
    assert len(answer.data) < MEGABYTE
    assert len(answer.json["data"]) <= 4 * NAMED_MOST + 20


def test_their_history_is_bounded_and_says_what_is_left_out(client: FlaskClient) -> None:
    answer = client.get(f"{URL_PREFIX}/stats/history")
    assert len(answer.data) < MEGABYTE
    data = answer.json["data"]
    assert data["left_out"] == 2 * NAMED_MOST - LIMITS_MOST
    assert max(len(point["hold"]) for point in data["points"]) == LIMITS_MOST


def test_the_command_line_shows_them(here: Callable[..., CompletedProcess[str]]) -> None:
    assert len(here("stats", "--json").stdout) < MEGABYTE
    assert len(here("stats", "--history", "--json").stdout) < MEGABYTE
