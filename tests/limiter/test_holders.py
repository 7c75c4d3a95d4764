"""Who holds tokens: the reader, its pages, and both faces of it."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest

from celery_concurrency.limiter.inspect.holders import find_token, read_tokens
from tests.support.answers import all_keys, assert_refused, out, refusal

TOKENS = "/api/v1/concurrency/tokens"
PREFIX = "concurrency"


@pytest.fixture
def held(limiter):
    """Three holders; returns what was granted to them."""
    limiter.config.update({"dimensions": {"tenant": {"max": 9}}})
    return [
        limiter.try_acquire("t1:a1", {"platform": "douyin", "account": "a:1"}, task="publish"),
        limiter.try_acquire("x:y:b2", {"platform": "douyin", "tenant": "租户"}, worker="w1@h"),
        limiter.try_acquire("plain", {}, task="other", worker="w2@h"),
    ]


def names(page):
    return [holder.token for holder in page.tokens]


def everyone(limiter, count, between=lambda page: None):
    """Return the names on all pages, one after the other."""
    cursor, found = "", []
    while cursor is not None:
        page = read_tokens(limiter.keyspace, "", count, cursor)
        assert len(page.tokens) <= count
        found += names(page)
        cursor = page.next
        between(page)
    return found


def test_who_holds_what(limiter, held, redis):
    page = read_tokens(limiter.keyspace)
    assert (page.total, page.next) == (3, None)
    by_name = {holder.token: holder for holder in page.tokens}
    one, two, three = (by_name[granted.token] for granted in held)
    assert one.model_dump() == {
        "token": "t1:a1",
        "task_id": "t1",
        "task": "publish",
        "limits": ["global", "platform:douyin", "account:a:1"],
        "worker": None,
        "since": one.since,
        "expires": held[0].expiry,
        "reserved": False,
        "kept": False,
    }
    assert 0 <= redis.time()[0] + 1 - one.since < 60
    assert (two.task_id, two.task, two.worker) == ("x:y", None, "w1@h")
    assert two.limits == list(held[1].limits)
    assert (three.task_id, three.limits) == ("plain", ["global"])


def test_holders_of_one_limit(limiter, held):
    for limit, tokens in {
        "platform:douyin": ["t1:a1", "x:y:b2"],
        "account:a:1": ["t1:a1"],
        "tenant:租户": ["x:y:b2"],
        "platform:nobody": [],
    }.items():
        page = read_tokens(limiter.keyspace, limit)
        assert (sorted(names(page)), page.total) == (tokens, len(tokens))


def test_only_living_ones(limiter, held, redis):
    for key in ("leases", "semaphore:global", "semaphore:platform:douyin", "semaphore:account:a:1"):
        redis.zadd(f"{PREFIX}:{key}", {"t1:a1": 1_000_000_000})
    page = read_tokens(limiter.keyspace)
    assert (sorted(names(page)), page.total) == (["plain", "x:y:b2"], 2)
    assert names(read_tokens(limiter.keyspace, "platform:douyin")) == ["x:y:b2"]
    assert find_token(limiter.keyspace, "t1:a1") is None
    assert find_token(limiter.keyspace, "x:y:b2") in page.tokens


def test_a_reservation_and_a_lost_record(limiter, redis):
    expiry = redis.time()[0] + 60
    redis.zadd(f"{PREFIX}:leases", {"t1:a1:reserved": expiry, "t2:lost": expiry})
    redis.hset(f"{PREFIX}:token:t1:a1:reserved", mapping={"limits": '["global"]', "reserved": 1})
    reserved, lost = read_tokens(limiter.keyspace).tokens
    assert (reserved.task_id, reserved.reserved, reserved.since) == ("t1", True, None)
    assert (lost.task_id, lost.limits, lost.task, lost.reserved) == ("t2", [], None, False)


def test_room_that_is_kept_is_told_from_a_holder(limiter, redis, client, here):
    limit = "platform:douyin"
    kept = "senior:collecting"
    redis.zadd(f"{PREFIX}:semaphore:{limit}", {kept: redis.time()[0] + 60})
    [one] = read_tokens(limiter.keyspace, limit).tokens
    assert (one.task_id, one.limits, one.kept, one.reserved) == ("senior", [limit], True, False)
    assert (
        out(here("tokens", "--limit", limit))
        .splitlines()[1]
        .startswith(f"{kept}  room kept for it  {limit}")
    )
    assert_refused(client.delete(f"{TOKENS}/{kept}"), 404, "not_held")


def test_the_tokens_of_a_task(client, held):
    data = client.get(f"{TOKENS}?task=x:y").json["data"]
    assert [one["token"] for one in data["tokens"]] == ["x:y:b2"]
    assert (data["total"], data["next"]) == (1, None)
    for query in ("task=x", "task=*", "task=x:y&limit=account:a:1"):
        assert client.get(f"{TOKENS}?{query}").json["data"]["tokens"] == [], query


def crowd(redis, expiries):
    """Put tokens there, each with its expiry, seconds from now."""
    now = redis.time()[0]
    tokens = {f"t{n:03d}:x": now + 1000 + seconds for n, seconds in enumerate(expiries)}
    redis.zadd(f"{PREFIX}:leases", tokens)
    return tokens


def test_who_has_held_for_longest_comes_first(limiter, redis, here, client):
    ages = {"b": 100, "d": 500, "a": 9_000, "c": 9_000}
    for name, age in ages.items():
        token = f"{name}:x"
        limiter.try_acquire(token, {"platform": "douyin"})
        since = redis.time()[0] - age
        redis.hset(f"{PREFIX}:token:{token}", "since", f"{since}")
    redis.hset(f"{PREFIX}:token:c:x", "since", redis.hget(f"{PREFIX}:token:a:x", "since"))
    crowd(redis, [1])  # since when it holds is not known
    expected = ["a:x", "c:x", "d:x", "b:x"]
    assert names(read_tokens(limiter.keyspace, "platform:douyin")) == expected
    expected.append("t000:x")
    assert everyone(limiter, 5) == everyone(limiter, 2) == expected
    assert [one["token"] for one in json.loads(out(here("tokens", "--json")))] == expected
    listed = client.get(TOKENS).json["data"]["tokens"]
    assert [one["token"] for one in listed] == expected


def test_many_come_as_they_expire(limiter, redis, monkeypatch):
    monkeypatch.setattr("celery_concurrency.limiter.inspect.holders.SORTED", 9)
    tokens = crowd(redis, [n % 3 for n in range(10)])
    expected = sorted(tokens, key=lambda token: (tokens[token], token))
    assert everyone(limiter, 4) == expected
    redis.zrem(f"{PREFIX}:leases", expected[0])
    assert everyone(limiter, 4) == sorted(expected[1:])


@pytest.fixture(params=["by age", "by expiry"])
def order(request, monkeypatch):
    """How they are sorted; by expiry, as if there were too many."""
    if request.param == "by expiry":
        monkeypatch.setattr("celery_concurrency.limiter.inspect.holders.SORTED", 0)
    return request.param


@pytest.mark.parametrize("count", [1, 2, 7, 49, 50, 51, 1000])
@pytest.mark.parametrize("seconds", [1, 3, 50], ids=lambda seconds: f"{seconds} expiries")
def test_all_pages_together_are_all_once(limiter, redis, count, seconds, order):
    tokens = crowd(redis, [n % seconds for n in range(50)])
    expected = sorted(tokens, key=lambda token: (tokens[token], token))
    if order == "by age":
        expected = sorted(tokens)
    assert everyone(limiter, count) == expected


@pytest.mark.parametrize("seconds", [1, 4])
def test_renewals_and_releases_between_pages_hide_nobody(limiter, redis, seconds, order):
    """Each page's last holder goes, some of those before are renewed: the rest is all seen."""
    tokens = crowd(redis, [n % seconds for n in range(40)])
    gone = set()

    def change(page):
        renewed = [holder.token for holder in page.tokens[:2]]
        redis.zadd(f"{PREFIX}:leases", dict.fromkeys(renewed, max(tokens.values()) + 50))
        last = page.tokens[-1].token
        redis.zrem(f"{PREFIX}:leases", last)
        gone.add(last)

    page = read_tokens(limiter.keyspace, "", 5)
    found = set(names(page))
    for _ in range(6):
        change(page)
        page = read_tokens(limiter.keyspace, "", 5, page.next)
        found |= set(names(page))
    found |= set(everyone_from(limiter, page))
    assert set(tokens) == found | gone


def everyone_from(limiter, page):
    found = []
    while page.next is not None:
        page = read_tokens(limiter.keyspace, "", 5, page.next)
        found += names(page)
    return found


@pytest.mark.parametrize(
    "cursor", ["x", "5", ":a", "5:", "nan:a", "-5:a", "1e5:a", f"{'9' * 40}:a", "age x:a"]
)
def test_what_is_no_cursor_is_refused(limiter, client, cursor):
    with pytest.raises(ValueError, match="not a cursor"):
        read_tokens(limiter.keyspace, cursor=cursor)
    response = client.get(TOKENS, query_string={"cursor": cursor})
    [detail] = assert_refused(response, 400, "invalid_query")
    assert detail["field"] == "cursor"


# -- over HTTP


def test_tokens_over_http(client, held):
    data = client.get(TOKENS).json["data"]
    assert set(data) == {"tokens", "total", "next"}
    assert sorted(one["token"] for one in data["tokens"]) == ["plain", "t1:a1", "x:y:b2"]
    data = client.get(TOKENS, query_string={"limit": "tenant:租户"}).json["data"]
    assert [one["token"] for one in data["tokens"]] == ["x:y:b2"]
    first = client.get(f"{TOKENS}?count=2").json["data"]
    assert (len(first["tokens"]), first["total"]) == (2, 3)
    query = {"count": 2, "cursor": first["next"]}
    second = client.get(TOKENS, query_string=query).json["data"]
    assert (len(second["tokens"]), second["next"]) == (1, None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"count": 0}, "count"),
        ({"count": 1001}, "count"),
        ({"count": "many"}, "count"),
        ({"limit": "douyin"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"limit": ":x"}, "limit"),
        ({"limit": "platform:"}, "limit"),
    ],
)
def test_a_bad_query_is_refused(english, query, field):
    [detail] = assert_refused(english.get(TOKENS, query_string=query), 400, "invalid_query")
    assert detail["field"] == field
    if field == "limit":
        assert "write 'global' or 'platform:douyin'" in detail["problem"]


@pytest.mark.parametrize("number", range(3))
def test_release_over_http(client, limiter, held, number, redis):
    token = held[number].token
    before = client.get(TOKENS).json["data"]["tokens"]
    response = client.delete(f"{TOKENS}/{quote(token, safe='')}")
    assert response.status_code == 200
    assert response.json["message"] == "令牌已释放"
    assert response.json["data"] in before
    assert response.json["data"]["token"] == token
    assert client.get(TOKENS).json["data"]["total"] == 2
    assert redis.zcard(f"{PREFIX}:semaphore:global") == 2
    # A second time, and the run's own release later, change nothing.
    keys = client.get("/api/v1/concurrency/stats").json
    assert_refused(client.delete(f"{TOKENS}/{token}"), 404, "not_held")
    assert limiter.release(token) is False
    assert client.get("/api/v1/concurrency/stats").json == keys


@pytest.mark.parametrize("token", ["nope", "t1", "t1:", "a/b", "t1:a1/", "%00", "配"])
def test_what_nobody_holds_is_not_found(client, held, redis_url, token):
    before = all_keys(redis_url)
    assert_refused(client.delete(f"{TOKENS}/{token}"), 404, "not_held")
    assert all_keys(redis_url) == before


def test_an_expired_token_is_not_found(client, held, redis):
    redis.zadd(f"{PREFIX}:leases", {"t1:a1": 1_000_000_000})
    assert_refused(client.delete(f"{TOKENS}/t1:a1"), 404, "not_held")


def test_a_token_of_a_task_with_a_slash_in_its_id(client, limiter):
    limiter.try_acquire("a/b:1", {})
    assert client.delete(f"{TOKENS}/a%2Fb:1").json["data"]["task_id"] == "a/b"


# -- on the command line


def test_tokens_on_the_command_line(cli, here, held):
    rows = [re.split(r"  +", line) for line in out(cli("tokens")).splitlines()]
    assert rows[0] == ["token", "task", "limits", "worker", "since", "expires"]
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert sorted(row[:4] for row in rows[1:]) == [
        ["plain", "other", "global", "w2@h"],
        ["t1:a1", "publish", "global platform:douyin account:a:1", "-"],
        ["x:y:b2", "-", "global platform:douyin tenant:租户", "w1@h"],
    ]
    assert all(re.fullmatch(when, cell) for row in rows[1:] for cell in row[4:])
    listed = json.loads(out(here("tokens", "--limit", "tenant:租户", "--json")))
    assert [one["token"] for one in listed] == ["x:y:b2"]
    assert json.loads(out(here("tokens", "--limit", "platform:nobody", "--json"))) == []
    assert "write 'global'" in refusal(here("tokens", "--limit", "douyin"))


def test_the_command_line_lists_more_than_a_page(here, redis, monkeypatch):
    tokens = crowd(redis, [n % 3 for n in range(25)])
    monkeypatch.setattr("celery_concurrency.cli.tokens.MAX_COUNT", 4)
    listed = json.loads(out(here("tokens", "--json")))
    assert sorted(one["token"] for one in listed) == sorted(tokens)


def test_release_on_the_command_line(cli, here, held, limiter):
    assert "released t1:a1: global platform:douyin account:a:1" in out(cli("release", "t1:a1"))
    assert limiter.usage().global_.current == 2
    assert "tokens lists" in refusal(here("release", "t1:a1"))
    assert "tokens lists" in refusal(here("release", "nope\n"))
