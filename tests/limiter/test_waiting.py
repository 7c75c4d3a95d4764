"""Who waits, in which order, and why: the reader, its pages, and its HTTP."""

from __future__ import annotations

import json
import random
from urllib.parse import quote

import pytest

from celery_concurrency.limiter import keyspace, waiters
from celery_concurrency.limiter.inspect import counts, waiting
from celery_concurrency.limiter.inspect.explanation import HOLDERS, explain
from celery_concurrency.limiter.inspect.waiter_records import HEAD
from celery_concurrency.limiter.inspect.waiting import read_waiting
from tests.support.answers import all_keys, assert_refused
from tests.support.waiting import hold, park, put_back

BASE = "/api/v1/concurrency"
WAITING = f"{BASE}/waiting"
PREFIX = "concurrency"
ACCOUNT_A = {"platform": "douyin", "account": "a"}
LIMITS_A = ["global", "platform:douyin", "account:a"]


def page_of(limiter, **query):
    return read_waiting(limiter.keyspace, limiter.config.sync().config, **query)


def why(limiter, task_id):
    return explain(limiter.keyspace, limiter.config.sync().config, task_id)


def ids(page):
    return [one.task_id for one in page.waiting]


def everyone(limiter, count, **query):
    """Return the ids on all pages, one after the other."""
    cursor, found = "", []
    while cursor is not None:
        page = page_of(limiter, count=count, cursor=cursor, **query)
        assert len(page.waiting) <= count
        found += ids(page)
        cursor = page.next
    return found


@pytest.fixture
def three(limiter):
    """Two that wait for account a, and between them one for account b of another platform."""
    hold(limiter, "h1", ACCOUNT_A)
    hold(limiter, "h2", {"platform": "kuaishou", "account": "b"})
    park(limiter, "w1", ACCOUNT_A)
    park(limiter, "w2", {"platform": "kuaishou", "account": "b"}, task="other")
    park(limiter, "w3", ACCOUNT_A)


def test_nobody_waits(limiter):
    page = page_of(limiter)
    assert (page.waiting, page.total, page.next) == ([], 0, None)


def test_who_waits_for_what(limiter, three, redis):
    page = page_of(limiter)
    assert (page.total, page.next) == (3, None)
    one, two, three = page.waiting
    assert one.to_dict() == {
        "task_id": "w1",
        "task": "publish",
        "limits": LIMITS_A,
        "blocked_by": {"reason": "full", "limit": "account:a", "current": 1, "max": 1},
        "position": 1,
        "since": one.since,
    }
    assert 0 <= redis.time()[0] + 1 - one.since < 60
    assert (two.task_id, two.task, two.position) == ("w2", "other", 1)
    assert (three.task_id, three.position, three.blocked_by) == ("w3", 2, one.blocked_by)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("global", ["w1", "w2", "w3"]),
        ("platform:douyin", ["w1", "w3"]),
        ("account:b", ["w2"]),
        ("account:nobody", []),
        # Part of a limit's name, and of a group's.
        ("account", []),
    ],
)
def test_those_of_one_limit(limiter, three, limit, expected):
    page = page_of(limiter, limit=limit)
    assert (ids(page), page.total) == (expected, len(expected))


def test_a_priority_comes_first_and_is_shown(limiter):
    hold(limiter, "h", ACCOUNT_A)
    park(limiter, "low", ACCOUNT_A, rank=3)
    park(limiter, "high", ACCOUNT_A)
    park(limiter, "elsewhere", {**ACCOUNT_A, "type": "publish"}, rank=1)
    high, elsewhere, low = page_of(limiter).waiting
    assert (high.task_id, high.position, "rank" in high.to_dict()) == ("high", 1, False)
    assert (elsewhere.task_id, elsewhere.position, elsewhere.to_dict()["rank"]) == (
        "elsewhere", 1, 1,
    )  # fmt: skip
    assert (low.task_id, low.position, low.to_dict()["rank"]) == ("low", 2, 3)
    assert 0 <= high.since - low.since < 60
    assert why(limiter, "low").to_dict()["rank"] == 3
    assert "rank" not in why(limiter, "high").to_dict()


def blocked(limiter, task_id):
    """Return why a task waits, which the page and the explanation say alike."""
    [one] = [one for one in page_of(limiter).waiting if one.task_id == task_id]
    assert why(limiter, task_id).blocked_by == one.blocked_by
    found = one.blocked_by
    return found.reason, found.limit, found.current, found.max


def test_those_who_expired_are_not_counted(limiter, redis):
    limiter.config.update({"platform_max": {"douyin": 1}})
    token = hold(limiter, "h", {"platform": "douyin"})
    park(limiter, "w", {"platform": "douyin"})
    assert blocked(limiter, "w") == ("full", "platform:douyin", 1, 1)
    redis.zadd(f"{PREFIX}:semaphore:platform:douyin", {token: 1_000_000_000})
    assert blocked(limiter, "w") == ("next", None, None, None)


def test_room_that_others_get_first(limiter, redis):
    hold(limiter, "h", ACCOUNT_A)
    park(limiter, "w1", ACCOUNT_A)
    park(limiter, "w2", ACCOUNT_A)
    redis.delete(f"{PREFIX}:semaphore:account:a")  # nobody hands it over yet
    assert blocked(limiter, "w1") == ("next", None, None, None)
    assert blocked(limiter, "w2") == ("behind", None, None, None)


def test_while_all_are_admitted_nothing_is_full(limiter):
    hold(limiter, "h", ACCOUNT_A)
    park(limiter, "w1", ACCOUNT_A)
    # As it is between such a change and the hand-over that follows it.
    config = limiter.config.sync().config.merged({"enabled": False})
    [one] = read_waiting(limiter.keyspace, config).waiting
    assert one.blocked_by.reason == "next"
    assert not any(limit.full for limit in explain(limiter.keyspace, config, "w1").limits)


def test_room_that_is_kept_for_a_senior(limiter, redis):
    """Of a platform and an account a senior needs both; the platform is kept for it already."""
    limiter.config.update({"platform_max": {"douyin": 2}})
    hold(limiter, "h1", ACCOUNT_A)
    hold(limiter, "h2", {"platform": "douyin", "account": "b"})
    park(limiter, "senior", ACCOUNT_A)
    park(limiter, "junior", {"platform": "douyin", "account": "b"})
    group = json.dumps(LIMITS_A)
    token = "senior:collecting"
    until = redis.time()[0] + 60
    redis.hset(f"{PREFIX}:collecting", mapping={"group": group, "token": token, "until": until})
    redis.delete(f"{PREFIX}:semaphore:platform:douyin")
    held = {"x:1": until, token: until}
    redis.zadd(f"{PREFIX}:semaphore:platform:douyin", held)
    assert blocked(limiter, "junior") == ("full", "account:b", 1, 1)
    assert why(limiter, "junior").blockers[1].reason == "kept"
    assert blocked(limiter, "senior") == ("full", "account:a", 1, 1)
    platform = why(limiter, "junior").limits[1]
    assert (platform.kept, [one.token for one in platform.holders]) == (True, ["x:1"])


# -- pages


@pytest.fixture
def crowd(limiter, redis, monkeypatch):
    """Waiters of groups of different sizes, mixed; returns their ids in order."""
    monkeypatch.setattr(waiting, "CHUNK", 3)
    for module in (keyspace, waiters):
        monkeypatch.setattr(module, "BATCH", 4)
    chosen = random.Random(7)
    accounts = [*"abcdefghij", *"aaaaaaaaaaaaaaabbbbbbbbcc", *"klmnopq"]
    chosen.shuffle(accounts)
    for account in set(accounts):
        hold(limiter, f"h-{account}", {"account": account})
    for number, account in enumerate(accounts):
        park(limiter, f"w{number:02}", {"account": account})
    return [f"w{number:02}" for number in range(len(accounts))]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 41, 42, 43, 1000])
def test_all_pages_together_are_all_once_in_order(limiter, crowd, count):
    assert len(crowd) == 42
    assert everyone(limiter, count) == crowd
    of_a = [one for one in crowd if "account:a" in why(limiter, one).limits[1].limit]
    assert len(of_a) == 16
    assert everyone(limiter, count, limit="account:a") == of_a


def test_the_total_is_counted_for_the_first_page(limiter, crowd):
    first = page_of(limiter, count=5)
    assert first.total == len(crowd)
    assert page_of(limiter, count=5, cursor=first.next).total is None


def test_those_who_leave_between_pages_hide_nobody(limiter, crowd):
    cursor, found, gone = "", [], set()
    while cursor is not None:
        page = page_of(limiter, count=4, cursor=cursor)
        found += ids(page)
        cursor = page.next
        # The first ones of some groups go, which moves these back.
        for one in random.Random(len(found)).sample(crowd, 3):
            gone.add(one)
            limiter.waiting_room.cancel(one)
    assert len(set(found)) == len(found)
    assert found == sorted(found)
    assert set(crowd) <= {*found, *gone}


def test_a_group_whose_first_leaves_while_a_page_is_read_comes_once(limiter, monkeypatch):
    for module in (keyspace, waiters):
        monkeypatch.setattr(module, "BATCH", 1)
    hold(limiter, "h1", {"account": "a"})
    hold(limiter, "h2", {"account": "b"})
    for task_id, account in (("w1", "a"), ("w2", "a"), ("w3", "b"), ("w4", "a")):
        park(limiter, task_id, {"account": account})
    places = waiting._in_order(limiter.keyspace, -1, "")
    assert next(places).name == "w1"
    limiter.waiting_room.cancel("w1")
    assert [place.name for place in places] == ["w2", "w3", "w4"]


def test_it_looks_at_no_more_groups_than_it_needs(limiter, crowd, redis):
    def reads(**query):
        redis.config_resetstat()
        page_of(limiter, **query)
        return redis.info("commandstats").get("cmdstat_getrange", {}).get("calls", 0)

    assert reads(count=2) == 2
    assert reads(count=10) == 10


@pytest.mark.parametrize("cursor", ["x", "-1", "5:a", "1e5", "9" * 18])
def test_what_is_no_cursor_is_refused(limiter, client, cursor):
    with pytest.raises(ValueError, match="not a cursor"):
        page_of(limiter, cursor=cursor)
    response = client.get(WAITING, query_string={"cursor": cursor})
    [detail] = assert_refused(response, 400, "invalid_query")
    assert detail["field"] == "cursor"


def test_long_headers_and_others_text(limiter):
    hold(limiter, "h", {"account": '账"号\\'})
    park(limiter, "w/1?:[*", {"account": '账"号\\'}, task="发布", before="界" * HEAD)
    park(limiter, "w2", {"account": '账"号\\'})
    one, two = page_of(limiter, limit='account:账"号\\').waiting
    assert (one.task_id, one.task, one.limits) == ("w/1?:[*", "发布", ["global", 'account:账"号\\'])
    assert two.position == 2
    assert why(limiter, "w/1?:[*").task == "发布"


def test_a_waiter_whose_key_somebody_deleted_is_left_out(limiter, three, redis):
    redis.delete(f"{PREFIX}:waiter:w1")
    assert ids(page_of(limiter)) == ["w2", "w3"]
    assert why(limiter, "w1") is None


# -- why


def test_why_one_waits(limiter, three, redis):
    token = hold(limiter, "h3", {"platform": "douyin"})
    found = why(limiter, "w3")
    assert (found.task_id, found.task, found.position) == ("w3", "publish", 2)
    assert (found.handed_over, found.reserved_until) == (False, None)
    assert [one.model_dump(exclude={"holders"}) for one in found.limits] == [
        {"limit": limit, "current": current, "max": most, "paused": False, "full": full,
         "kept": False}
        for limit, current, most, full in (
            ("global", 3, 0, False), ("platform:douyin", 2, 0, False), ("account:a", 1, 1, True),
        )
    ]  # fmt: skip
    # Who holds is said of those that are full only.
    assert [[one.task_id for one in limit.holders] for limit in found.limits] == [[], [], ["h1"]]
    limiter.config.update({"paused": ["platform:douyin"]})
    platform = why(limiter, "w3").limits[1]
    assert (platform.paused, platform.full) == (True, True)
    assert platform.holders == []  # it does not wait for them
    limiter.config.update({"platform_max": {"douyin": 2}})
    assert {one.token for one in why(limiter, "w3").limits[1].holders} > {token}


def test_few_of_many_holders_are_named(limiter):
    limiter.config.update({"platform_max": {"douyin": HOLDERS + 5}})
    for number in range(HOLDERS + 5):
        hold(limiter, f"h{number}", {"platform": "douyin"})
    park(limiter, "w", {"platform": "douyin"})
    platform = why(limiter, "w").limits[1]
    assert (len(platform.holders), platform.current) == (HOLDERS, HOLDERS + 5)


def test_a_retried_task_is_found_by_its_id(limiter):
    hold(limiter, "h", ACCOUNT_A)
    park(limiter, "w", ACCOUNT_A, retries=2)
    assert (why(limiter, "w").task_id, why(limiter, "w").position) == ("w", 1)
    assert ids(page_of(limiter)) == ["w"]


@pytest.mark.parametrize("task_id", ["w", "w:1", "w[1]*?\\"])
def test_one_that_was_handed_over(limiter, redis, task_id):
    token = hold(limiter, "h", ACCOUNT_A)
    since = park(limiter, task_id, ACCOUNT_A, rank=2).number % 2**43 / 1000
    limiter.release(token)
    assert len(put_back(redis)) == 1
    found = why(limiter, task_id)
    assert (found.handed_over, found.blocked_by, found.position) == (True, None, None)
    assert (found.since, found.rank) == (since, 2)
    assert [one.limit for one in found.limits] == LIMITS_A
    assert 0 < found.reserved_until - redis.time()[0] <= 31
    assert page_of(limiter).total == 0


@pytest.mark.parametrize("task_id", ["h1", "h", "*", "w", "h1:", "w1 retry 1", ""])
def test_one_that_does_not_wait(limiter, three, task_id):
    assert why(limiter, task_id) is None


# -- usage


def test_usage_counts_who_waits(limiter, three, client, redis):
    limiter.config.update({"account_max": 2, "paused": ["task_type:publish", "account:d"]})
    park(limiter, "w4", {"account": "d", "platform": "新"})
    limiter.config.update({"account_max": 1})
    data = client.get(f"{BASE}/usage").json["data"]
    shown = (*data["platforms"].values(), *data["accounts"].values(), data["global"])
    since = [one.pop("waiting_since") for one in shown if "waiting" in one]
    assert all(redis.time()[0] - 60 < moment <= redis.time()[0] + 1 for moment in since)
    # w1 and w2 were handed the second place of their accounts.
    assert data["global"] == {"current": 4, "max": 0, "waiting": 2}
    assert data["platforms"]["douyin"] == {"current": 2, "max": 0, "waiting": 1}
    assert data["platforms"]["kuaishou"] == {"current": 2, "max": 0}
    assert data["platforms"]["新"] == {"current": 0, "max": 0, "waiting": 1}
    assert data["task_types"]["publish"] == {"current": 0, "max": 0, "paused": True}
    assert data["accounts"] == {
        "a": {"current": 2, "max": 1, "waiting": 1},
        "b": {"current": 2, "max": 1},
        "d": {"current": 0, "max": 1, "paused": True, "waiting": 1},
    }


def test_usage_lists_no_account_for_those_who_wait_alone(limiter):
    limiter.config.update({"global_max": 1})
    hold(limiter, "h", {})
    park(limiter, "w", ACCOUNT_A)
    usage = limiter.usage()
    assert (usage.accounts, usage.platforms["douyin"].waiting) == ({}, 1)


def test_counting_sends_a_command_a_group(limiter, redis, monkeypatch):
    for module in (keyspace, counts):
        monkeypatch.setattr(module, "BATCH", 3)
    for account in "abcdefgh":
        hold(limiter, f"h-{account}", {"account": account})
        for number in range(5):
            park(limiter, f"w-{account}-{number}", {"account": account})
    redis.config_resetstat()
    by_limit = counts.count_waiting(limiter.keyspace)
    assert by_limit["global"] == 40
    assert {by_limit[f"account:{account}"] for account in "abcdefgh"} == {5}
    calls = {name: stat["calls"] for name, stat in redis.info("commandstats").items()}
    assert calls["cmdstat_zcard"] == 8 + 1  # one for how many groups there are


# -- over HTTP


def test_waiting_over_http(client, three):
    data = client.get(WAITING).json["data"]
    assert [one["task_id"] for one in data["waiting"]] == ["w1", "w2", "w3"]
    assert (data["total"], data["next"]) == (3, None)
    data = client.get(WAITING, query_string={"limit": "platform:douyin"}).json["data"]
    assert [one["task_id"] for one in data["waiting"]] == ["w1", "w3"]
    first = client.get(f"{WAITING}?count=2").json["data"]
    assert (len(first["waiting"]), first["total"]) == (2, 3)
    second = client.get(f"{WAITING}?count=2&cursor={first['next']}").json["data"]
    assert [one["task_id"] for one in second["waiting"]] == ["w3"]
    assert (second["total"], second["next"]) == (None, None)


def test_why_over_http(client, limiter, three):
    hold(limiter, "h/3", {"account": "x/y"})
    park(limiter, "w/4", {"account": "x/y"})
    for task_id in ("w1", "w/4"):
        data = client.get(f"{WAITING}/{quote(task_id, safe='')}").json["data"]
        assert (data["task_id"], data["position"], data["handed_over"]) == (task_id, 1, False)
        assert data["blocked_by"]["reason"] == "full"
        [holder] = data["limits"][-1]["holders"]
        assert holder["task"] == "publish"
    assert_refused(client.get(f"{WAITING}/h1"), 404, "not_waiting")


def test_no_arguments_are_shown(client, limiter, three):
    for path in (WAITING, f"{WAITING}/w1"):
        assert "secret" not in client.get(path).get_data(as_text=True)


@pytest.mark.parametrize("field", ["limit", "count"])
def test_a_bad_query_is_refused(client, field):
    for value in ("", "0", "douyin", ":x"):
        response = client.get(WAITING, query_string={field: value})
        [detail] = assert_refused(response, 400, "invalid_query")
        assert detail["field"] == field


def test_cancel_over_http(client, limiter, three, redis):
    response = client.delete(f"{WAITING}/w1")
    assert response.status_code == 200
    assert response.json["data"] == {"cancelled": 1}
    assert response.json["message"] == "已取消等待中的任务"
    [message] = put_back(redis)
    assert (message["headers"]["id"], message["headers"]["concurrency_discard"]) == ("w1", True)
    assert ids(page_of(limiter)) == ["w2", "w3"]
    assert why(limiter, "w3").position == 1
    response = client.delete(f"{WAITING}/w1", headers={"Accept-Language": "en"})
    assert_refused(response, 404, "not_waiting")
    assert response.json["message"] == "This task does not wait (any more)"


@pytest.mark.parametrize("task_id", ["nope", "h1", "w1/", "%00", "配"])
def test_who_does_not_wait_is_not_cancelled(client, three, task_id, redis_url):
    before = all_keys(redis_url)
    assert_refused(client.delete(f"{WAITING}/{task_id}"), 404, "not_waiting")
    assert all_keys(redis_url) == before


@pytest.mark.parametrize(
    ("limit", "cancelled"),
    [("platform:douyin", ["w1", "w3"]), ("global", ["w1", "w2", "w3"]), ("account:none", [])],
)
def test_cancel_all_of_a_limit(client, limiter, three, redis, limit, cancelled):
    response = client.delete(WAITING, query_string={"limit": limit})
    assert response.json["data"] == {"cancelled": len(cancelled)}
    messages = put_back(redis)
    assert sorted(message["headers"]["id"] for message in messages) == cancelled
    assert all(message["headers"]["concurrency_discard"] for message in messages)
    assert sorted(ids(page_of(limiter)) + cancelled) == ["w1", "w2", "w3"]
    counted = client.get(f"{BASE}/stats").json["data"]
    assert counted.get("cancelled:total", 0) == len(cancelled)


def test_cancelling_many_goes_in_steps(limiter, redis, monkeypatch):
    monkeypatch.setattr("celery_concurrency.limiter.waiting_room.CANCEL_BATCH", 4)
    hold(limiter, "h", ACCOUNT_A)
    for number in range(10):
        park(limiter, f"w{number}", ACCOUNT_A)
    redis.delete(f"{PREFIX}:waiter:w3")  # somebody did
    steps = limiter.waiting_room.cancel_limit("platform:douyin")
    assert next(steps) == 3
    park(limiter, "late", ACCOUNT_A)
    assert list(steps) == [4, 2]
    assert ids(page_of(limiter)) == ["late"]
    assert [message["headers"]["id"] for message in put_back(redis)][:3] == ["w8", "w9", "w4"]


@pytest.mark.parametrize("query", ["", "?limit=", "?limit=douyin", "?limits=global"])
def test_nobody_cancels_all_by_mistake(client, limiter, three, query):
    [detail] = assert_refused(client.delete(WAITING + query), 400, "invalid_query")
    assert detail["field"] == "limit"
    assert page_of(limiter).total == 3
