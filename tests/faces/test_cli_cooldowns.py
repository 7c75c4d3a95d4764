"""Cool-downs, rates and what waits for a moment, on the command line."""

from __future__ import annotations

import getpass
import json
import re

import pytest

from celery_concurrency.cli.durations import rates_of, seconds_of
from celery_concurrency.cli.monitor import JsonView, LineView
from celery_concurrency.cli.snapshot import Snapshot
from tests.support.answers import mistake, out, refusal
from tests.support.waiting import hold, park

A = {"account": "a"}
RATES = {"account:*": [{"max": 1, "per": 30}, {"max": 15, "per": 86_400}]}
#: With a window that does not end while a slow machine looks at it, and what is left of that.
HOURLY = {"account:*": [{"max": 1, "per": 3600}, {"max": 15, "per": 86_400}]}
SOON = r"(1 h|5\d min( \d+ s)?)"


@pytest.fixture
def shut(limiter):
    """Account a has begun one of 15 a day; two wait. Account c cools down."""
    limiter.config.update({"rates": HOURLY})
    limiter.release(hold(limiter, "h1", A))
    park(limiter, "w1", A)
    park(limiter, "w2", A)
    limiter.cooldowns.set("account:c", 600, "429", "ann")
    park(limiter, "w3", {"account": "c"})


def table(text):
    return [re.split(r"  +", line) for line in text.splitlines()]


def test_cool_and_cool_off(cli, here, limiter):
    done = out(cli("cool", "account:a", "--for", "10m", "--reason", "风控", "--operator", "张三"))
    assert re.fullmatch(
        r"account:a admits nobody until [\d-]+ [\d:]+ \((9 min [0-9]+ s|10 min)\): 风控\n", done
    )
    [one], _ = limiter.cooldowns.read()
    assert (one.limit, one.reason, one.by) == ("account:a", "风控", "张三")
    stands = json.loads(out(here("cool", "account:a", "--for", "90s", "--json")))
    assert (stands["reason"], stands["until"]) == ("风控", one.until)
    assert out(cli("cool", "account:a", "--off")) == "account:a admits tasks again\n"
    assert "account:a does not cool down" in refusal(here("cool", "account:a", "--off"))
    out(here("cool", "global", "--for", "1d"))
    [one], _ = limiter.cooldowns.read()
    assert (one.by, one.reason) == (getpass.getuser(), "")
    assert json.loads(out(here("cool", "global", "--off", "--json"))) == {
        "limit": "global", "lifted": True,
    }  # fmt: skip


def test_cooldowns_lists_them(cli, here, shut, limiter):
    head, row = table(out(cli("cooldowns")))
    assert head == ["limit", "until", "left", "since", "by", "reason"]
    assert (row[0], row[4], row[5]) == ("account:c", "ann", "429")
    assert re.fullmatch(r"10 min|9 min \d+ s", row[2])
    [one] = json.loads(out(here("cooldowns", "--json")))
    assert set(one) == {"limit", "until", "seconds", "since", "reason", "by", "refused", "probe"}
    limiter.cooldowns.lift("account:c")
    assert json.loads(out(here("cooldowns", "--json"))) == []
    assert len(table(out(here("cooldowns")))) == 1


def test_no_more_are_listed_than_there_is_room_for(here, limiter, monkeypatch):
    monkeypatch.setattr("celery_concurrency.limiter.cooldowns.MAX_LISTED", 2)
    for number in range(3):
        limiter.cooldowns.set(f"account:{number}", 60 + 60 * number)
    done = here("cooldowns")
    assert [row[0] for row in table(out(done))[1:]] == ["account:2", "account:1"]
    assert done.stderr == "3 cool down in all; these are the last to open\n"


def test_pause_for_a_while_is_the_same(cli, here, limiter):
    said = out(cli("pause", "platform:douyin", "--for", "30m", "--reason", "night"))
    assert said.startswith("platform:douyin admits nobody until ")
    assert limiter.config.sync().config.paused == []
    [one], _ = limiter.cooldowns.read()
    assert one.reason == "night"
    out(cli("resume", "platform:douyin"))
    assert limiter.cooldowns.read() == ([], 0)
    assert "is not paused" in refusal(here("resume", "platform:douyin"))


def test_what_is_paused_already_is_said(here, limiter):
    limiter.config.pause("platform:douyin")
    again = here("pause", "platform:douyin")
    assert out(again) == "paused now: platform:douyin\n"
    assert again.stderr == "nothing changed: platform:douyin was paused before\n"


def test_resume_ends_both(here, limiter):
    limiter.config.pause("platform:douyin")
    limiter.cooldowns.set("platform:douyin", 60)
    assert out(here("resume", "platform:douyin")) == "nothing is paused now\n"
    assert limiter.cooldowns.read() == ([], 0)
    assert limiter.config.sync().config.paused == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["account:a"], "give either --for, such as --for 10m, or --off"),
        (["account:a", "--for", "1m", "--off"], "give either --for"),
        (["account:a", "--off", "--reason", "x"], "--reason goes with --for"),
        (["account:a", "--for", "90"], "'90' is not a duration: use 90s, 10m, 2h or 1d"),
        (["account:a", "--for", "-1m"], "is not a duration"),
        (["account:a", "--for", "1h30m"], "is not a duration"),
        (["account:a", "--for", "1\nm"], "'1\\nm' is not a duration"),
        (["account:a", "--for", "٣m"], "is not a duration"),
        (["account:a", "--for", "0s"], "0s is not between 1s and 7d"),
        (["account:a", "--for", "8d"], "8d is not between 1s and 7d"),
        (["--for", "1m"], "Missing argument"),
    ],
)
def test_mistakes_in_the_call(here, limiter, arguments, said):
    assert said in mistake(here("cool", *arguments))
    assert limiter.cooldowns.read() == ([], 0)


def test_a_reason_is_of_a_cool_down(here):
    assert "--reason goes with --for" in mistake(here("pause", "global", "--reason", "x"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["acount:a", "--for", "1m"], "account, platform, task_type"),
        (["account:*", "--for", "1m"], "write 'global'"),
        (["account:a", "--for", "1m", "--reason", "a\nb"], "reason must be one line"),
        (["account:a", "--for", "1m", "--operator", "x" * 201], "by must be one line"),
    ],
)
def test_refusals(here, limiter, arguments, said):
    assert said in refusal(here("cool", *arguments))
    assert limiter.cooldowns.read() == ([], 0)


def test_durations():
    assert [seconds_of(text) for text in ("90s", "10m", "2h", "1d", "1w", "", "m", "1 m")] == [
        90, 600, 7200, 86_400, None, None, None, None,
    ]  # fmt: skip
    assert rates_of("1/30s,15/1d") == RATES["account:*"]
    assert rates_of("1/30s, 15/1d") == RATES["account:*"]
    assert [rates_of(text) for text in ("", "1/30", "1/30s,", "x/30s", "[]")] == [None] * 5


# -- rates


def test_rates_in_one_word(cli, here, limiter):
    done = out(cli("config", "set", "rates.account:*=1/30s,15/1d", "global_max=9"))
    assert json.loads(done)["rates"] == RATES
    assert limiter.config.sync().config.to_dict()["rates"] == RATES
    out(here("config", "set", "rates.platform:a=b=60/1m"))
    assert json.loads(out(here("config", "get", "rates.platform:a=b"))) == [{"max": 60, "per": 60}]
    out(here("config", "set", 'rates.account:*=[{"max": 2, "per": 9}]'))
    assert json.loads(out(here("config", "get", "rates.account:*"))) == [{"max": 2, "per": 9}]
    out(here("config", "set", "rates.account:*=null", "rates.platform:a=b=null"))
    assert "rates" not in json.loads(out(here("config", "get", "--json")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rates.account:*=0/30s", "rates.account:*.0.max: Input should be greater than or equal"),
        ("rates.account:*=1/8d", "rates.account:*.0.per: Input should be less than or equal to"),
        ("rates.account:*=1/1s,1/2s,1/3s,1/4s,1/5s", "at most 4 items"),
        ("rates.acount:*=1/1s", "rates: names 'acount:*', which is not a limit"),
    ],
)  # fmt: skip
def test_rates_that_can_not_be(here, change, said):
    assert said in refusal(here("config", "set", change))


@pytest.mark.parametrize("change", ["rates.account:*=1/30", "rates.account:*=often", "rates=1/30s"])
def test_rates_that_are_none(here, change):
    assert "'rates.account:*=1/30s,15/1d'" in mistake(here("config", "set", change))


# -- what looks


def test_usage_shows_them(cli, here, shut):
    head, *rows = table(out(cli("usage")))
    assert head == ["limit", "current", "max", "waiting", "oldest wait", "rates and cool-down"]
    by_limit = {row[0]: row for row in rows}
    assert re.fullmatch(
        rf"1 of 1 per 1 h, opens in {SOON}; 1 of 15 per 1 d", by_limit["account:a"][-1]
    )
    assert re.fullmatch(
        r"0 of 1 per 1 h; 0 of 15 per 1 d; cools down for (9 min \d+ s|10 min): 429",
        by_limit["account:c"][-1],
    )
    assert len(by_limit["global"]) == 5
    shown = json.loads(out(here("usage", "--json")))
    assert shown["accounts"]["a"]["rates"][0]["used"] == 1
    assert shown["accounts"]["c"]["cooldown"]["by"] == "ann"


def test_usage_without_any_has_no_such_column(here, limiter):
    hold(limiter, "h", A)
    assert table(out(here("usage")))[0] == ["limit", "current", "max", "waiting", "oldest wait"]


def test_waiting_says_when_a_limit_opens(cli, here, shut, client):
    rows = table(out(cli("waiting")))[1:]
    assert re.fullmatch(r"account:a opens in \d+ s \(1 per 3600 s\)", rows[0][4])
    assert re.fullmatch(r"account:c opens in \d+ s \(it cools down: 429\)", rows[2][4])
    first, *rows = out(cli("waiting", "w1")).splitlines()
    assert re.search(r": account:a opens in \d+ s \(1 per 3600 s\); it is number 1 of those", first)
    assert rows[0].split()[-3:] == ["rates", "and", "cool-down"]
    assert re.match(rf"account:a +0 +1 +shut +1 of 1 per 1 h, opens in {SOON}; 1 of 15", rows[-1])
    shown = json.loads(out(here("waiting", "w3", "--json")))
    data = client.get("/api/v1/concurrency/waiting/w3").json["data"]
    for one in (shown, data):
        for blocker in (one["blocked_by"], *one["blockers"]):
            blocker.pop("text")  # it says in how many seconds
    assert shown == data


def test_a_limit_that_is_shut_lists_no_holders(here, limiter):
    limiter.config.update({"account_max": 2, "rates": RATES})
    hold(limiter, "h1", A)
    park(limiter, "w1", A)
    assert "is held by" not in out(here("waiting", "w1"))


def test_the_monitor_shows_them(limiter, shut, capsys):
    snapshot = Snapshot.of(limiter)
    LineView().show(snapshot)
    line = capsys.readouterr().out
    assert re.search(
        rf"account:a 0/1 \+2 waiting \(1 of 1 per 1 h, opens in {SOON}; 1 of 15 per 1 d\)", line
    )
    assert re.search(r"account:c 0/1 \+1 waiting \([^)]*cools down for [^)]*: 429\)", line)
    assert re.search(r"w1 as account:a opens in \d+ s", line)
    JsonView().show(snapshot)
    shown = json.loads(capsys.readouterr().out)
    assert shown["usage"]["waiting_for_moment"] == 3
    assert shown["waiting"][0]["blocked_by"]["reason"] == "rate"
