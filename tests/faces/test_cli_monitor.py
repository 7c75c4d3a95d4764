"""``monitor``: plain lines in a pipe, a picture in a terminal, and its end."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest
from redis import Redis
from rich.console import Console
from rich.live import Live

from celery_concurrency.cli.live_view import LiveView
from celery_concurrency.cli.monitor import LIMITS_NAMED, JsonView, LineView
from celery_concurrency.cli.snapshot import Snapshot
from celery_concurrency.testing.server import Server
from tests.support.answers import mistake, out
from tests.support.waiting import hold, park

ACCOUNT_A = {"platform": "douyin", "account": "a"}
COMMAND = [
    *(sys.executable, "-m", "celery", "-A", "tests.projects.plain", "concurrency", "monitor"),
    *("--interval", "1"),
]


@pytest.fixture
def busy(limiter):
    """Account a is held, and two wait for it."""
    limiter.config.update({"platform_max": {"douyin": 5}, "paused": ["platform:kuaishou"]})
    hold(limiter, "h1", ACCOUNT_A)
    park(limiter, "w1", ACCOUNT_A)
    park(limiter, "w2", ACCOUNT_A)


@pytest.fixture
def monitor(redis_url):
    """Starts the command with its output in a pipe."""
    started = []

    def start(*arguments, url=redis_url, stdout=subprocess.PIPE):
        one = subprocess.Popen(
            [*COMMAND, *arguments],
            env={**os.environ, "BROKER_URL": url, "RESULT_BACKEND": url, "TERM": "xterm"},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate(timeout=60)


def interrupted(process):
    """End it as Ctrl-C does; returns what else it said."""
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    return output, errors


def test_lines_in_a_pipe(monitor, busy):
    one = monitor()
    line = one.stdout.readline()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  global 1/unlimited \+2 waiting, platform:douyin 1/5 \+2 waiting, "
        r"platform:kuaishou 0/unlimited paused, account:a 1/1 \+2 waiting"
        r" \| 1 hold: h1 \(w1@h\)"
        r" \| 2 wait: w1 as account:a is full \(1 of 1\), w2 as account:a is full \(1 of 1\)\n",
        line,
    )
    assert one.stdout.readline()[8:] == line[8:]
    assert interrupted(one)[1] == ""


def test_it_shows_what_changes(monitor, limiter):
    one = monitor()
    assert one.stdout.readline()[8:] == "  global 0/unlimited\n"
    hold(limiter, "h1", {"platform": "douyin"})
    assert any("platform:douyin 1/" in line for line in one.stdout)
    assert interrupted(one)[1] == ""


def test_json_lines(monitor, busy, limiter):
    one = monitor("--json")
    data = json.loads(one.stdout.readline())
    assert set(data) == {"at", "usage", "tokens", "waiting"}
    assert data["usage"] == limiter.usage().to_dict()
    assert [holder["task_id"] for holder in data["tokens"]] == ["h1"]
    assert [waiter["task_id"] for waiter in data["waiting"]] == ["w1", "w2"]
    interrupted(one)


def test_it_goes_on_when_redis_comes_back(monitor):
    with Server() as server, Redis.from_url(server.url()) as client:
        one = monitor(url=server.url())
        assert "global" in one.stdout.readline()
        # Let nobody in but this connection.
        client.config_set("maxclients", 1)
        client.client_kill_filter(skipme=True, _type="normal")
        assert "Redis" in one.stderr.readline()
        client.config_set("maxclients", 100)
        assert "global" in one.stdout.readline()
        interrupted(one)


def test_a_first_look_that_fails_ends_it(cli):
    nowhere = "redis://127.0.0.1:1/0"
    done = cli("monitor", BROKER_URL=nowhere, RESULT_BACKEND=nowhere)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: Redis")


def test_a_reader_that_leaves_is_no_traceback(monitor):
    one = monitor()
    one.stdout.readline()
    one.stdout.close()
    assert one.wait(60) == 1
    assert one.stderr.read() == ""


@pytest.mark.parametrize("interval", ["0", "-1", "0.5", "nan"])
def test_a_bad_interval_is_a_mistake(here, interval):
    mistake(here("monitor", "--interval", interval))


def test_the_picture_in_a_terminal(monitor, busy):
    master, slave = pty.openpty()
    one = monitor(stdout=slave)
    os.close(slave)
    shown = ""
    deadline = time.monotonic() + 90
    while "w2" not in shown and time.monotonic() < deadline:
        if select.select([master], [], [], 1)[0]:
            shown += os.read(master, 65536).decode()
    assert "w2" in shown
    assert "█" in shown
    assert interrupted(one)[1] == ""
    os.close(master)


# -- what is drawn


def picture(moment, height=40, problem=None, width=110):
    """Return the text of a picture."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    live = Live(console=console, auto_refresh=False)
    view = LiveView(live)
    view.show(moment)
    if problem:
        view.fail(problem)
    console.print(live.get_renderable())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def row(text, name):
    [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.split()


def test_what_the_picture_shows(limiter, busy):
    text = picture(Snapshot.of(limiter))
    assert row(text, "global")[:4] == ["global", "1", "unlimited", "2"]
    assert row(text, "global")[-1] == "s"  # the oldest wait
    assert row(text, "platform:douyin")[1:5] == ["████░░░░░░░░░░░░░░░░", "1", "5", "2"]
    assert row(text, "platform:kuaishou")[1:] == ["0", "unlimited", "(paused)"]
    assert row(text, "account:a")[1:5] == ["█" * 20, "1", "1", "2"]
    assert "1 hold\n" in text.replace(" \n", "\n")
    assert row(text, "h1")[1:3] == ["publish", "w1@h"]
    assert row(text, "w2")[-6:] == ["account:a", "is", "full", "(1", "of", "1)"]


def test_a_small_terminal_shows_the_busiest(limiter):
    for account in "abcdefghijklmnop":
        hold(limiter, f"h-{account}", {"account": account})
    for number in range(9):
        park(limiter, f"w{number}", {"account": "p"})
    text = picture(Snapshot.of(limiter), height=24)
    assert row(text, "account:p")[-3] == "9"
    assert "16 hold, 3 of them shown" in text
    assert "9 wait, 3 of them shown" in text
    assert len(text.splitlines()) <= 24


def test_in_80_columns_the_reason_is_whole(limiter):
    token = "5f1c2a7e-0000-4000-8000-000000000001"
    limiter.config.update({"paused": ["platform:xiaohongshu"]})
    tags = {"platform": "xiaohongshu", "account": "a"}
    park(limiter, token, tags, task="project.tasks.publish_the_video")
    text = picture(Snapshot.of(limiter), width=80)
    assert re.search(r"^5f1c2a7e +\d+ s +platform:xiaohongshu is paused", text, re.M)
    assert f"{token}  project.tasks.publish_the_video" in picture(Snapshot.of(limiter), width=130)


def test_in_80_columns_a_holders_limits_can_be_read(limiter):
    hold(limiter, "5f1c2a7e-0000-4000-8000-000000000001", {"platform": "bilibili", "account": "a"})
    assert "platform:bilibili account:a" in picture(Snapshot.of(limiter), width=80)


@pytest.mark.parametrize("width", [80, 110])
def test_the_last_column_gives_way(limiter, width):
    task_id = "0d9c0b3e-6c0f-4d55-8d2e-1f6c1d0b7a11"
    hold(limiter, task_id, {"platform": "xiaohongshu", "account": "an-account-" + 60 * "x"})
    hold(limiter, "small", {})
    text = picture(Snapshot.of(limiter), width=width)
    shown = task_id if width == 110 else task_id[:8]
    assert row(text, shown)[:3] == [shown, "publish", "w1@h"]
    assert row(text, shown)[-1].endswith("…")
    assert row(text, "small")[-1] == "global"
    assert "xiaohongshu" in row(text, "platform:xiaohongshu")[0]


def test_a_line_names_the_busiest_limits(limiter, capsys):
    accounts = range(LIMITS_NAMED + 5)
    for number in accounts:
        hold(limiter, f"h{number}", {"account": f"acc{number}"})
    park(limiter, "w", {"account": f"acc{accounts[-1]}"})
    LineView().show(Snapshot.of(limiter))
    limits = capsys.readouterr().out.partition(" | ")[0].split(", ")
    assert len(limits) == LIMITS_NAMED + 1
    assert limits[0].endswith("global 17/unlimited +1 waiting")
    assert f"account:acc{accounts[-1]} 1/1 +1 waiting" in limits
    assert limits[-1] == "6 more"


def test_names_steer_no_terminal(limiter, capsys):
    account = {"account": "[red]"}
    hold(limiter, "h1", account)
    park(limiter, "w[red]\x1b[2J\n", account)
    moment = Snapshot.of(limiter)
    text = picture(moment)
    assert "account:[red]" in text
    assert r"w[red]\x1b[2J\n" in text
    LineView().show(moment)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_problem_is_shown_with_the_last_picture(limiter, busy, capsys):
    moment = Snapshot.of(limiter)
    text = picture(moment, problem="Redis can't be asked")
    assert "Redis can't be asked" in text
    assert "w2" in text
    LineView().fail("Redis can't be asked\n")
    assert capsys.readouterr().err == "Redis can't be asked\\n\n"


def test_a_configuration_that_is_not_in_force_is_said(limiter, redis, capsys):
    redis.set("concurrency:config", '{"globel_max": 1}')
    moment = Snapshot.of(limiter)
    assert "globel_max" in picture(moment)
    LineView().show(moment)
    assert "not in force: globel_max" in capsys.readouterr().err
    JsonView().show(moment)
    assert "globel_max" in json.loads(capsys.readouterr().out)["usage"]["config_problem"]
    assert isinstance(moment.at, datetime)


def test_it_is_in_the_help(cli):
    assert "monitor" in out(cli("--help"))
