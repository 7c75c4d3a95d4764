"""Adaptive limits, refusals and probes on the command line."""

from __future__ import annotations

import json
import re

import pytest

from celery_concurrency.cli.durations import adaptive_of
from celery_concurrency.cli.live_view import open_live_view
from celery_concurrency.cli.monitor import LineView
from celery_concurrency.cli.snapshot import Snapshot
from tests.faces.test_cli_cooldowns import table
from tests.support import scenes
from tests.support.answers import mistake, out, refusal

LIMIT = "platform:bilibili"
WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def probe(limiter):
    return scenes.refused(limiter)


def test_each_is_shown_with_its_last_move(cli, here, probe):
    head, row = table(out(cli("adaptive")))
    assert head == ["limit", "in force", "range", "moved", "why"]
    assert row[:3] == [LIMIT, "4", "1..8"]
    assert re.fullmatch(WHEN, row[3])
    assert row[4] == "8 -> 4: refused: 429"
    [one] = json.loads(out(here("adaptive", "--json")))
    assert (one["limit"], one["current"], one["in_force"]) == (LIMIT, 4, 4)
    assert one["entry"] == {"min": 1, "max": 8, "decrease": 0.5, "every": 30}


def test_what_is_in_force_may_be_another(here, limiter):
    limiter.config.update(
        {
            "platform_max": {"a": 3, "b": 0, "c": 0},
            "adaptive": {
                "platform:a": {"min": 1, "max": 5},
                "platform:b": {"min": 1, "max": 5, "mode": "observe"},
                "platform:c": {"min": 1, "max": 5},
            },
        }
    )
    limiter.config.pause("platform:c")
    rows = table(out(here("adaptive")))[1:]
    assert [row[:2] for row in rows] == [
        ["platform:a", "3 (configured)"],
        ["platform:b", "unlimited (it would be 5)"],
        ["platform:c", "paused"],
    ]
    assert rows[0][3:] == ["-", "-"]


def test_no_more_are_listed_than_there_is_room_for(here, limiter, monkeypatch):
    monkeypatch.setattr("celery_concurrency.limiter.adaptive.MAX_LISTED", 2)
    limiter.config.update({"adaptive": {f"platform:{n}": {"min": 1, "max": 2} for n in range(3)}})
    done = here("adaptive")
    assert len(table(out(done))) == 3
    assert done.stderr == "3 are adaptive in all; these are the last that moved\n"


def test_reset(cli, here, limiter, probe):
    said = out(cli("adaptive", "reset", LIMIT, "--operator", "张三"))
    assert said == f"{LIMIT} is back at 8; in force: 8\n"
    assert limiter.adaptive.moves(LIMIT)[-1].reason == "reset by 张三"
    said = out(here("adaptive", "reset", "task_type:never-seen"))
    assert said == "task_type:never-seen was already at 20; in force: unlimited (it would be 20)\n"
    assert json.loads(out(here("adaptive", "reset", LIMIT, "--json")))["current"] == 8
    assert "-> 8: reset by 张三" in out(here("adaptive"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reset", "platform:douyin"], "'config set adaptive.platform:douyin=1-10' makes it so"),
        (["reset", "platform:*"], "platform:* is a wildcard: name one limit"),
        (["reset", "douyin"], "'douyin'"),
    ],
)
def test_refusals(here, limiter, arguments, said):
    assert said in refusal(here("adaptive", *arguments))


def test_mistakes_in_the_call(here, limiter):
    assert "Missing argument" in mistake(here("adaptive", "reset"))
    assert "No such command" in mistake(here("adaptive", "platform:douyin"))
    assert "write --json after reset" in mistake(here("adaptive", "--json", "reset", LIMIT))


# -- beside the others


def test_cooldowns_say_what_comes_after(here, limiter, probe):
    head, rests, tried = table(out(here("cooldowns")))
    assert head == ["limit", "until", "left", "since", "by", "reason", "then"]
    assert (rests[0], rests[4:]) == (
        "account:rests",
        ["refused-rests", "429", "then one run first"],
    )
    assert (tried[0], tried[2], tried[6]) == ("account:tried", "over", "trying: tries")
    assert json.loads(out(here("cooldowns", "--json")))[1]["probe"] == probe
    limiter.release(probe)
    [*_, tried] = table(out(here("cooldowns")))
    assert (tried[0], tried[6]) == ("account:tried", "trying: wait-probe")


def test_usage_marks_what_adapts_and_what_was_refused(here, probe):
    rows = {row[0]: row for row in table(out(here("usage")))}
    assert rows[LIMIT][1:3] == ["3", "4 (adaptive 1-8)"]
    assert rows["task_type:publish"][2] == "unlimited (adaptive 2-20, 20 observed)"
    assert rows["account:tried"][-1] == "after a refusal: 429, trying: tries"
    assert re.fullmatch(
        r"cools down for (10 min|9 min \d+ s): 429, then one run first", rows["account:rests"][-1]
    )


def test_monitor_marks_them(here, limiter, probe, capsys):
    LineView().show(Snapshot.of(limiter))
    line = capsys.readouterr().out
    assert f"{LIMIT} 3/4 (adaptive 1-8) +1 waiting" in line
    assert "account:tried 1/3 +1 waiting (after a refusal: 429, trying: tries)" in line
    assert "wait-probe as account:tried (one run goes first, after a refusal)" in line


def test_the_live_view_marks_them(limiter, probe, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    with open_live_view() as view:
        view.show(Snapshot.of(limiter))
    assert "4 (adaptive 1-8)" in capsys.readouterr().out


def test_who_waits_is_told_which_one_goes_first(here, probe):
    first, *_, last = out(here("waiting", "wait-probe")).splitlines()
    assert "account:tried (one run goes first, after a refusal)" in first
    assert re.fullmatch(f"account:tried is tried by {probe}: publish on w1@h since {WHEN}", last)


# -- in the configuration


def test_in_one_word(cli, here, limiter):
    changes = ("adaptive.platform:*=1-10", "adaptive.platform:douyin=2-20,every=2m,decrease=0.7")
    done = json.loads(out(cli("config", "set", *changes)))
    assert done["adaptive"] == {
        "platform:*": {"min": 1, "max": 10, "decrease": 0.5, "every": 60},
        "platform:douyin": {"min": 2, "max": 20, "decrease": 0.7, "every": 120},
    }
    # What is not named stays.
    out(here("config", "set", "adaptive.platform:douyin=3-30,mode=observe"))
    shown = json.loads(out(here("config", "get", "adaptive.platform:douyin")))
    assert shown == {"min": 3, "max": 30, "decrease": 0.7, "every": 120, "mode": "observe"}
    out(here("config", "set", 'adaptive.platform:douyin={"mode": "enforce"}'))
    done = json.loads(out(here("config", "set", "adaptive.platform:douyin=null")))
    assert done["adaptive"].keys() == {"platform:*"}


@pytest.mark.parametrize(
    "text", ["10", "1-", "-1-10", "1-10,", "1-10,every=60", "1-10,every", "1-10,decrease=1",
             "1-10,decrease=nan", "1-10,min=2", "1-10,mode=off", "1-10,every=1s,every=2s", "٣-10"],
)  # fmt: skip
def test_what_is_no_adaptive_limit(text):
    assert adaptive_of(text) is None


def test_what_is_only_observed_is_not_said_to_be_in_force(here, limiter):
    for change, said in (
        ('platform_max.douyin={"max": 5, "mode": "observe"}', "observed now:\n"),
        ("platform_max.douyin=5", "in force now:\n"),
        ("adaptive.platform:*=1-10,mode=observe", "observed now:\n"),
        ("adaptive.platform:*=2-10", "observed now:\n"),
        ("rates.account:*=1/30s:observe", "observed now:\n"),
        ("rates.account:*=1/30s:observe,9/1d",
         "in force now, except for what has mode observe:\n"),
        ("rates.account:*=null", "in force now:\n"),
    ):  # fmt: skip
        done = here("config", "set", change)
        assert out(done), change
        assert done.stderr.startswith(said), change


def test_what_it_is_written_as_is_said(here, limiter):
    said = mistake(here("config", "set", "adaptive.platform:douyin=1-x"))
    assert "'adaptive.platform:*=1-10,every=60s,decrease=0.5'" in said
    for text, problem in (
        ("every=60", "every needs a unit: 90s, 2m or 1h"),
        ("evry=60s", "'evry' is not one of its options: every, decrease, mode"),
        ("decrease=2", "decrease must be more than 0 and less than 1"),
        ("mode=off", "mode must be enforce or observe"),
        ("every=1s,every=2s", "every is given twice"),
    ):
        assert problem in mistake(here("config", "set", f"adaptive.platform:a=b=1-10,{text}"))
    assert "min, 9, is greater than max, 3" in refusal(
        here("config", "set", "adaptive.platform:douyin=9-3")
    )
    assert "adaptive" not in limiter.config.sync().config.to_dict()
