"""The configuration's memory on the command line."""

from __future__ import annotations

import getpass
import json
import re

from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.config.schema import Config
from tests.support.answers import mistake, out, refusal

DEFAULTS = Config().to_dict()


def table(done):
    return [re.split(r"  +", line) for line in out(done).splitlines()]


def test_history_and_rollback(cli, here, limiter):
    """As a person on call does it: what happened, and back."""
    out(cli("config", "set", "global_max=4", "platform_max.douyin=2"))
    out(here("config", "set", "account_max=3", "--operator", "张三"))
    limiter.config.update({"paused": ["global"]}, Author("api"))
    assert "can't be printed" in refusal(here("config", "reset", "--operator", "a\n\x1b[31mb"))
    out(here("config", "reset", "--yes", "--operator", "eve"))
    user = getpass.getuser()
    shown = table(cli("config", "history"))
    assert shown[0] == ["version", "at", "operator", "source", "changed"]
    assert [[row[0], *row[2:]] for row in shown[1:]] == [
        [
            *("5", "eve", "reset"),
            "global_max 4 -> 0, platform_max.douyin 2 -> 0, account_max 3 -> 1, and 1 more",
        ],
        ["4", "unknown", "api", "paused global"],
        ["3", "张三", "cli", "account_max 1 -> 3"],
        ["2", user, "cli", "global_max 0 -> 4, platform_max.douyin 0 -> 2"],
        ["1", "unknown", "default"],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[1]) for row in shown[1:])

    done = cli("config", "rollback", "3", "--json")
    assert json.loads(out(done)) == limiter.config.sync().config.to_dict()
    assert limiter.config.sync().config.account_max == 3
    changes = ["global_max 0 -> 4", "platform_max.douyin 0 -> 2", "account_max 1 -> 3"]
    assert done.stderr.splitlines() == ["in force now:", *(f"  {one}" for one in changes)]
    again = here("config", "rollback", "3")
    assert out(again)
    assert again.stderr == "nothing changed: this was in force before\n"
    newest, *older = json.loads(out(here("config", "history", "--json")))
    assert (newest["source"], newest["operator"], newest["version"]) == ("rollback", user, 6)
    assert newest["config"] == older[2]["config"]
    assert len(older) == 5


def test_a_change_says_what_changed_from_what_to_what(here, limiter):
    limiter.config.update({"global_max": 6, "platform_max": {"douyin": 2}})
    version = limiter.config.pause("platform:douyin").version
    done = here("config", "set", "global_max=5", 'paused=["global"]')
    assert out(done)
    assert done.stderr.splitlines() == [
        "in force now:", "  global_max 6 -> 5", "  paused global; resumed platform:douyin"
    ]  # fmt: skip
    # A rollback may resume what somebody has paused.
    done = here("config", "rollback", str(version - 1))
    assert "  resumed global" in done.stderr.splitlines()
    many = here("config", "set", *(f"platform_max.p{number}=1" for number in range(15)))
    assert many.stderr.splitlines()[11] == "  and 5 more"


def test_a_text_that_is_not_valid_is_in_the_history(here, limiter, redis):
    limiter.config.sync()
    redis.set("concurrency:config", '{"globel_max": 1}')
    assert table(here("config", "history"))[1][3:] == [
        "hand-written",
        "not in force: globel_max: there is no such field; did you mean global_max?",
    ]


def test_there_is_no_such_version(here, limiter):
    version = limiter.config.sync().version
    assert "history" in refusal(here("config", "rollback", "77"))
    for wrong in ("x", "-1", "1.0", str(2**63)):
        mistake(here("config", "rollback", wrong))
    assert limiter.config.sync().version == version


def test_a_user_without_a_name_has_a_number(here, limiter, monkeypatch):
    def nobody():
        raise OSError("no user of this number")

    monkeypatch.setattr(getpass, "getuser", nobody)
    out(here("config", "set", "global_max=4"))
    assert re.fullmatch(r"uid \d+", limiter.config.history()[0].operator)


def test_help_says_who_is_the_operator(here):
    for command in ("set", "reset", "rollback"):
        assert "the OS user" in " ".join(out(here("config", command, "--help")).split())


def test_a_reset_says_what_it_changes_and_asks(here, limiter, monkeypatch):
    limiter.config.update({"global_max": 4, "paused": ["global"]})
    monkeypatch.setattr("celery_concurrency.cli.config.is_terminal", lambda: True)
    no = here("config", "reset", input="n\n")
    assert no.returncode == 1
    lines = ["This changes:", "  global_max 4 -> 0", "  resumed global"]
    assert no.stderr.splitlines()[:3] == lines
    assert limiter.config.sync().config.global_max == 4
    assert json.loads(out(here("config", "reset", input="y\n"))) == DEFAULTS
    again = here("config", "reset")  # there is nothing to ask about
    assert out(again)
    assert again.stderr == "nothing changed: this was in force before\n"


def test_a_reset_without_a_terminal_needs_to_be_told(here, limiter):
    limiter.config.update({"global_max": 4})
    said = mistake(here("config", "reset"))
    assert "this changes global_max 4 -> 0; without a terminal, add --yes" in said
    assert limiter.config.sync().config.global_max == 4
    assert json.loads(out(here("config", "reset", "--yes"))) == DEFAULTS


def test_what_changed_while_it_asked_is_not_reset(here, limiter, monkeypatch):
    limiter.config.update({"global_max": 4})

    def confirm(*args, **options):
        limiter.config.update({"global_max": 5})

    monkeypatch.setattr("celery_concurrency.cli.config.is_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", confirm)
    assert "at version 3" in here("config", "reset").stderr
    assert limiter.config.sync().config.global_max == 5
