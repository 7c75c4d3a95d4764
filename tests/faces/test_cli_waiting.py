"""Who waits and why on the command line, cancelling, and draining."""

from __future__ import annotations

import json
import re

import pytest

from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.inspect.explanation import HOLDERS
from tests.support.answers import mistake, out, refusal
from tests.support.waiting import hold, park, put_back

ACCOUNT_A = {"platform": "douyin", "account": "a"}
WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def held(limiter):
    """Two that wait for account a; returns the token of who holds it."""
    token = hold(limiter, "h1", ACCOUNT_A)
    park(limiter, "w1", ACCOUNT_A)
    park(limiter, "w2", ACCOUNT_A, task="other")
    return token


def table(text):
    return [re.split(r"  +", line) for line in text.splitlines()]


def test_who_waits(cli, here, held, limiter):
    head, one, two = table(out(cli("waiting")))
    assert head == ["task id", "task", "since", "position", "waits as", "limits"]
    assert re.fullmatch(WHEN, one.pop(2))
    assert re.fullmatch(WHEN, two.pop(2))
    limits = "global platform:douyin account:a"
    assert one == ["w1", "publish", "1", "account:a is full (1 of 1)", limits]
    assert two == ["w2", "other", "2", "account:a is full (1 of 1)", limits]
    assert len(out(here("waiting", "--limit", "platform:nobody")).splitlines()) == 1
    assert "write 'global'" in refusal(here("waiting", "--limit", "douyin"))


def test_who_waits_as_json(here, held, client):
    shown = json.loads(out(here("waiting", "--json")))
    data = client.get("/api/v1/concurrency/waiting").json["data"]
    assert shown == {"waiting": data["waiting"], "total": 2}
    assert json.loads(out(here("waiting", "--json", "--limit", "account:b"))) == {
        "waiting": [],
        "total": 0,
    }


def test_the_first_ones_of_many(here, limiter, monkeypatch):
    monkeypatch.setattr("celery_concurrency.cli.waiting.MAX_COUNT", 4)
    hold(limiter, "h", ACCOUNT_A)
    for number in range(12):
        park(limiter, f"w{number}", ACCOUNT_A)
    done = here("waiting", "--count", "10")
    assert [row[0] for row in table(out(done))[1:]] == [f"w{number}" for number in range(10)]
    assert done.stderr == "12 wait in all; --count shows more\n"
    done = here("waiting", "--count", "50", "--json")
    assert len(json.loads(out(done))["waiting"]) == 12
    assert done.stderr == ""
    mistake(here("waiting", "--count", "0"))


def test_why_one_waits(cli, here, held, limiter):
    first, *rows = out(cli("waiting", "w2")).splitlines()
    assert re.fullmatch(
        rf"w2 \(other\) waits since {WHEN} \(\d+ s\): account:a is full \(1 of 1\); "
        "it is number 2 of those with the same limits",
        first,
    )
    assert [row.split() for row in rows[:-1]] == [
        ["limit", "current", "max"],
        ["global", "1", "unlimited"],
        ["platform:douyin", "1", "unlimited"],
        ["account:a", "1", "1", "full"],
    ]
    assert re.fullmatch(rf"account:a is held by {held}: publish on w1@h since {WHEN}", rows[-1])


def test_why_one_waits_as_json(here, held, client):
    shown = json.loads(out(here("waiting", "w2", "--json")))
    assert shown == client.get("/api/v1/concurrency/waiting/w2").json["data"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"paused": ["platform:douyin"]},
            f"platform:douyin is paused since {WHEN} by ann (cli); account:a is full (1 of 1)",
        ),
        ({"global_max": 1}, "account:a is full (1 of 1); global is full (1 of 1)"),
    ],
)
def test_the_reason_in_words(here, limiter, held, change, expected):
    limiter.config.update(change, Author("cli", "ann"))
    found = out(here("waiting", "w1")).splitlines()[0]
    expected = re.escape(expected).replace(re.escape(WHEN), WHEN)
    assert re.search(f": {expected}; it is number 1", found)


def test_one_that_cools_down_or_is_stuck_in_words(here, limiter, held, redis):
    limiter.cooldowns.set("platform:douyin", 600, "429", "ann")
    key = f"concurrency:token:{held}"
    redis.hset(key, "since", f"{float(redis.hget(key, 'since')) - 7200:.6f}")
    expected = (
        rf"platform:douyin opens in \d+ s \(it cools down: 429\) since {WHEN} by ann; "
        r"account:a is full \(1 of 1; none has begun there for 2 h\); it is number 1"
    )
    assert re.search(expected, out(here("waiting", "w1")).splitlines()[0])


def test_others_that_come_first(here, limiter, held, redis):
    redis.delete("concurrency:semaphore:account:a")
    assert ": it comes next; it is number 1" in out(here("waiting", "w1"))
    assert ": others with the same limits come first; it is number 2" in out(here("waiting", "w2"))


def test_room_kept_for_a_senior(here, limiter, redis):
    limiter.config.update({"platform_max": {"douyin": 2}})
    hold(limiter, "h1", {"platform": "douyin"})
    hold(limiter, "h2", {"platform": "douyin"})
    park(limiter, "w", {"platform": "douyin"})
    until = redis.time()[0] + 60
    kept = {"group": "[]", "token": "s:collecting", "until": until}
    redis.hset("concurrency:collecting", mapping=kept)
    redis.zpopmin("concurrency:semaphore:platform:douyin")
    redis.zadd("concurrency:semaphore:platform:douyin", {"s:collecting": until})
    lines = out(here("waiting", "w")).splitlines()
    assert "platform:douyin is kept for one that was passed over for long (2 of 2)" in lines[0]
    assert lines[-1] == (
        "platform:douyin is held by the room that is kept for one that was passed over for long"
    )
    assert sum("is held by" in line for line in lines) == 2


def test_how_many_places_a_heavy_task_takes(here, limiter, client):
    token = hold(limiter, "h", {"platform": "douyin"}, weight=2)
    limiter.config.update({"platform_max": {"douyin": 3}})
    park(limiter, "w", {"platform": "douyin"}, weight=3)
    reason, limits = table(out(here("waiting")))[1][-2:]
    assert reason == "platform:douyin is full (2 of 3, it takes 3)"
    assert limits == "global platform:douyin (3 places)"
    assert table(out(here("tokens")))[1][2] == "global platform:douyin (2 places)"
    assert f"platform:douyin is held by {token}: publish (2 places)" in out(here("waiting", "w"))
    answers = [
        client.get(f"/api/v1/concurrency/{path}").json["data"]
        for path in ("tokens", "waiting", "waiting/w", "usage")
    ]
    assert answers[0]["tokens"][0]["weight"] == 2
    assert answers[1]["waiting"][0]["weight"] == answers[2]["weight"] == 3
    assert answers[1]["waiting"][0]["limits"] == ["global", "platform:douyin"]
    assert answers[1]["waiting"][0]["blocked_by"]["takes"] == 3
    assert answers[3]["platforms"]["douyin"]["current"] == 2


def test_more_holders_than_are_named(here, limiter):
    limiter.config.update({"global_max": HOLDERS + 3})
    for number in range(HOLDERS + 3):
        hold(limiter, f"h{number}", {})
    park(limiter, "w", {})
    lines = out(here("waiting", "w")).splitlines()
    assert sum("is held by h" in line for line in lines) == HOLDERS
    assert lines[-1] == "global is held by 3 more; tokens --limit global lists them"


def test_one_that_was_handed_room(here, limiter, held):
    limiter.release(held)
    line = out(here("waiting", "w1")).splitlines()[0]
    assert line.startswith("w1 was handed room and is back in its queue: it begins when a worker")
    assert re.search(rf" by {WHEN}$", line)
    assert "account:a is held by w1:" in out(here("waiting", "w2"))
    assert "reserved for it" in out(here("waiting", "w2"))


def test_an_id_is_not_of_one_limit(here, held):
    assert "give either an ID or --limit" in mistake(here("waiting", "w1", "--limit", "account:a"))


def test_those_that_do_not_wait(here, held):
    line = refusal(here("waiting", "h1"))
    assert re.search(rf"h1 does not wait: it runs on w1@h since {WHEN}, as {held}$", line)
    assert "asks again by countdown" in refusal(here("waiting", "nope\n"))


def test_cancel(cli, here, limiter, held, redis):
    assert out(cli("cancel", "w1", "w2")) == "cancelled w1\ncancelled w2\n"
    messages = put_back(redis)
    assert sorted(message["headers"]["id"] for message in messages) == ["w1", "w2"]
    assert all(message["headers"]["concurrency_discard"] for message in messages)
    assert "not waiting (any more): w1 no\\npe; the command waiting lists" in refusal(
        here("cancel", "w1", "no\npe")
    )
    park(limiter, "w3", ACCOUNT_A)
    done = here("cancel", "nope", "w3")  # those that wait are cancelled all the same
    assert (done.returncode, done.stdout) == (1, "cancelled w3\n")
    assert done.stderr.startswith("Error: not waiting (any more): nope;")
    assert mistake(here("cancel"))


def test_drain(cli, here, limiter, redis, held):
    done = here("drain")
    assert out(done) == "2 given back to the broker\n"
    assert "warning: concurrency_waiting is 'auto' here" in done.stderr
    messages = put_back(redis)
    assert [message["headers"]["id"] for message in messages] == ["w1", "w2"]
    assert not any("concurrency_discard" in message["headers"] for message in messages)
    assert limiter.usage().global_.waiting == 0
    assert out(cli("drain")) == "0 given back to the broker\n"


def test_drain_ends_though_workers_park_them_again(here, limiter, held, monkeypatch):
    monkeypatch.setattr("celery_concurrency.limiter.waiting_room.DRAIN_BATCH", 1)
    drain = type(limiter.waiting_room).drain
    numbers = iter(range(100))

    def drain_and_park(room):
        for count in drain(room):
            park(limiter, f"again{next(numbers)}", ACCOUNT_A)
            yield count

    monkeypatch.setattr(type(limiter.waiting_room), "drain", drain_and_park)
    done = here("drain")
    assert out(done) == "2 given back to the broker\n"
    assert "2 wait again, or are new" in done.stderr


def test_drain_does_not_warn_where_tasks_retry(cli, held):
    done = cli("drain")  # of a project that says so
    assert out(done) == "2 given back to the broker\n"
    assert "warning" not in done.stderr


def test_purge(cli, here, held, limiter, redis):
    assert out(cli("purge", "--yes")) == "2 thrown away\n"
    assert put_back(redis) == []
    assert limiter.usage().global_.waiting == 0
    done = here("purge")  # there is nothing to ask about
    assert (out(done), done.stderr.count("Are you sure?")) == ("0 thrown away\n", 0)


def test_purge_asks(here, held, limiter):
    done = here("purge", input="n\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "This throws away 2 waiting tasks for good" in done.stderr
    assert "Aborted!" in done.stderr
    assert (here("purge", input="").returncode, limiter.usage().global_.waiting) == (1, 2)
    assert out(here("purge", input="y\n")) == "2 thrown away\n"


def test_purge_as_json(here, held, limiter, monkeypatch):
    purge = type(limiter.waiting_room).purge

    def purge_and_park(room):
        yield from purge(room)
        park(limiter, "new", ACCOUNT_A)

    monkeypatch.setattr(type(limiter.waiting_room), "purge", purge_and_park)
    assert json.loads(out(here("purge", "--json", "--yes"))) == {"purged": 2, "waiting": 1}
    done = here("purge", "--json", input="y\n")  # the question stands apart from the answer
    assert json.loads(out(done)) == {"purged": 1, "waiting": 1}
    done = here("purge", "--yes")
    assert (out(done), "1 still wait, or are new" in done.stderr) == ("1 thrown away\n", True)
    assert mistake(here("purge", "w1"))
