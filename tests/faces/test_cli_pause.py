"""Pausing and resuming limits on the command line."""

from __future__ import annotations

import getpass
import json

import pytest

from tests.support.answers import mistake, out, refusal


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_pausing_needs_one_limit(here, command):
    mistake(here(command))
    mistake(here(command, "global", "global"))


def test_pause_and_resume(cli, here, limiter):
    assert "platform:douyin" in out(cli("pause", "platform:douyin", "--operator", "张三"))
    assert limiter.config.sync().config.paused == ["platform:douyin"]
    assert "platform:douyin" in out(here("pause", "platform:douyin"))
    out(here("pause", "account:a b"))
    assert json.loads(out(here("pause", "global", "--json"))) == [
        "platform:douyin",
        "account:a b",
        "global",
    ]
    assert "platform:douyin" not in out(cli("resume", "platform:douyin"))
    assert limiter.config.sync().config.paused == ["account:a b", "global"]
    history = limiter.config.history()
    assert (history[0].operator, history[0].source) == (getpass.getuser(), "cli")
    assert history[-2].operator == "张三"
    out(here("resume", "global"))
    assert "nothing is paused" in out(here("resume", "account:a b"))


def test_resume_leaves_what_a_refusal_began_and_says_so(here, limiter):
    limiter.refuse("one:1", ("global", "account:a"), "account:a", 600)
    limiter.config.pause("account:a")
    result = here("resume", "account:a")
    assert "nothing is paused" in result.stdout
    assert "A platform refused it: 'cool account:a --off'" in result.stderr
    assert limiter.cooldowns.find("account:a").seconds > 590
    assert "account:a is not paused. A platform refused it" in refusal(here("resume", "account:a"))


@pytest.mark.parametrize(
    ("command", "limit", "said"),
    [
        ("pause", "douyin", "write 'global' or '<dimension>:<name>'"),
        ("pause", "tenant:a", "account, platform, task_type"),
        ("pause", "platform:*", "write 'global'"),
        ("pause", "", "write 'global'"),
        ("resume", "platform:douyin", "paused are: account:a, global"),
        ("resume", "douyin", "paused are: account:a, global"),
    ],
)
def test_a_limit_that_can_not_be_paused_or_resumed(here, limiter, command, limit, said):
    before = limiter.config.update({"paused": ["account:a", "global"]})
    assert said in refusal(here(command, limit))
    assert limiter.config.sync() == before
