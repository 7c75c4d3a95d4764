"""The demo: its verdict on made-up records, and the whole of it as users start it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rich.console import Console
from rich.live import Live

from celery_concurrency.cli.live_view import LiveView
from celery_concurrency.cli.snapshot import Snapshot
from celery_concurrency.demo.load import (
    CEILING,
    PLATFORMS,
    STRICT,
    TWIN,
    Load,
    Run,
    Task,
    record_cancelled,
    recorded,
)  # fmt: skip
from celery_concurrency.demo.platform import Refused
from celery_concurrency.demo.report import Report, make_report
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.inspect.usage import LimitUsage, Usage
from tests.support.workers import wait_for

DEMO = [sys.executable, "-m", "celery_concurrency.demo"]


# The verdict


def seen(*changes: dict[str, Any], versions: tuple[int, ...] = ()) -> list[Stored]:
    """The configurations that these changes lead to, one after the other."""
    configs, config = [], Config()
    for number, change in enumerate(changes or ({},)):
        config = config.merged(change)
        configs.append(Stored(config, versions[number] if versions else number + 1))
    return configs


Times = tuple[float, float | None] | tuple[float, float | None, bool]


def task(*times: Times, account: str = "a", platform: str = "douyin") -> Task:
    """A task that ran from, to; None if it did not end; and whether it was refused."""
    runs = {str(number): Run(*one) for number, one in enumerate(times)}
    return Task({"platform": platform, "account": account, "type": "publish"}, runs)


def report_of(tasks: list[Task], *more: Any) -> Report:
    return make_report({f"t{number}": one for number, one in enumerate(tasks, 1)}, *more)


@pytest.fixture
def lines(capsys) -> Callable[[Report], list[str]]:
    """Prints a report, and returns its lines."""

    def printed(report: Report) -> list[str]:
        report.print()
        return capsys.readouterr().out.splitlines()

    return printed


def test_all_ran_one_after_the_other_is_all_right(lines):
    report = report_of([task((1, 2)), task((2, 3))], seen())
    assert (report.status, report.problems) == (0, [])
    assert [(row.limit, row.sent, row.run, row.overlap, row.max) for row in report.rows] == [
        ("global", 2, 2, 1, 0),
        ("account:a", 2, 2, 1, 1),
        ("platform:douyin", 2, 2, 1, 0),
        ("task_type:publish", 2, 2, 1, 0),
    ]
    assert lines(report)[-1].startswith("OK: all 2 tasks ran")


def test_a_cancelled_task_is_not_lost(lines):
    gone, refused = task(), task((2, 3, True))
    gone.cancelled = refused.cancelled = True
    report = report_of([task((1, 2)), gone, refused], seen())
    assert (report.status, report.problems, report.cancelled) == (0, [], 2)
    assert lines(report)[-1].startswith("OK: all 1 tasks ran that were not cancelled (2 were), ")


def test_who_was_cancelled_is_read(redis_url):
    class Publish:
        def apply_async(self, *args: Any, **options: Any) -> None:
            """Nobody runs it."""

    with Redis.from_url(redis_url) as client:
        load = Load(Publish(), client)
        load.send()
        [task_id] = load.tasks
        record_cancelled(client, task_id)
        record_cancelled(client, "sent by hand")
        load.read()
        assert load.tasks[task_id].cancelled
        assert load.unfinished == {}


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"global_max": 1, "account_max": 0}, "global"),
        ({"platform_max": {"douyin": 1}, "account_max": 0}, "platform:douyin"),
        ({"task_type_max": {"publish": 1}, "account_max": 0}, "task_type:publish"),
        ({}, "account:a"),
        ({"account_max": 5, "account_overrides": {"a": 1}}, "account:a"),
    ],
)
def test_two_at_once_where_one_was_allowed_fails_and_is_named(change, limit, lines):
    report = report_of([task((1, 2)), task((1.9, 3))], seen(change))
    assert report.status == 1
    assert report.problems == [f"{limit} had 2 at once and allowed 1"]
    assert f"FAILED: {limit} had 2 at once and allowed 1" in lines(report)


def test_the_account_shown_is_one_that_exceeded_its_limit(lines):
    accounts = ["quiet", *2 * ["loud"], *5 * ["many"]]
    limits = seen({"account_overrides": {"many": 9}})
    report = report_of([task((1, 2), account=account) for account in accounts], limits)
    shown = lines(report)
    assert any(line.startswith("account:loud (the busiest of 3)") for line in shown)


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([], "1 of 1 tasks did not run: t1"),
        ([(1, None)], "1 of 1 tasks began and did not end: t1"),
        ([(1, 2), (3, 4)], "1 of 1 tasks ran more than once: t1"),
        ([(1, 3), (2, 4)], "1 of 1 tasks ran more than once: t1"),
        ([(1, 2, True), (2, 3), (3, 4)], "1 of 1 tasks ran more than once: t1"),
        ([(1, 2, True)], "1 of 1 tasks were refused and did not run again: t1"),
    ],
)
def test_a_task_that_did_not_run_exactly_once_fails(runs, problem):
    report = report_of([task(*runs)], seen({"account_max": 0}))
    assert (report.status, report.problems) == (1, [problem])


def test_a_refused_task_is_to_run_again_and_its_runs_count_in_overlaps(lines):
    again = task((1, 2, True), (3, 4, True), (5, 6))
    report = report_of([again, task((1.5, 2.5))], seen({"account_max": 2}), [], ["a remark"])
    assert (report.status, report.problems) == (0, [])
    assert [(row.run, row.overlap) for row in report.rows] == [(2, 2)] * 4
    assert "a remark" in lines(report)
    assert report_of([again, task((1.5, 2.5))], seen()).problems == [
        "account:a had 2 at once and allowed 1"
    ]


def test_an_adaptive_limit_is_judged_by_the_most_it_can_come_to():
    limit = {"platform:douyin": {"min": 1, "max": 2, "every": 1}}
    runs = [task((1, 2), account=account) for account in "abc"]
    for changes, most in (
        ({"adaptive": limit}, 2),
        ({"adaptive": limit, "platform_max": {"douyin": 5}}, 2),
        ({"adaptive": limit, "platform_max": {"douyin": 1}}, 1),
        ({"adaptive": limit, "enabled": False}, 0),
        ({"adaptive": {"platform:douyin": {**limit["platform:douyin"], "mode": "observe"}}}, 0),
    ):
        report = report_of(runs, seen(changes))
        row = next(row for row in report.rows if row.limit == "platform:douyin")
        assert (row.overlap, row.max) == (3, most)
        assert report.status == (most > 0)


def test_nothing_sent_proves_nothing():
    assert report_of([], seen()).problems == ["no task was sent"]


def test_a_problem_from_elsewhere_fails_too():
    report = report_of([task((1, 2))], seen(), ["a worker died"])
    assert (report.status, report.problems) == (1, ["a worker died"])


@pytest.mark.parametrize(
    ("changes", "allowed", "status"),
    [
        ([{"account_max": 2}, {"account_max": 1}], "2*", 0),  # lowered: what runs goes on
        ([{"account_max": 1}, {"account_max": 2}], "2*", 0),
        ([{"account_max": 1}, {"account_max": 0}], "unlimited*", 0),
        ([{"account_max": 1}, {"enabled": False}, {"enabled": True}], "unlimited*", 0),
        ([{"account_max": 1}, {"global_max": 9}], "1", 1),
    ],
)
def test_a_limit_that_was_changed_is_judged_by_the_highest_in_force(
    changes, allowed, status, lines
):
    report = report_of([task((1, 2)), task((1, 2))], seen(*changes))
    assert report.status == status
    account = next(line for line in lines(report) if line.startswith("account:a"))
    assert account.split()[-1] == allowed


def test_a_configuration_that_nobody_saw_can_not_be_judged_by():
    limits = seen({}, {"global_max": 1}, versions=(1, 3))
    report = report_of([task((1, 2)), task((1, 2))], limits)
    assert report.status == 1
    assert report.problems == [
        "the configuration changed faster than it was looked at: can't judge by it"
    ]


# Its parts


class Publish:
    """Stands for the task."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def apply_async(self, args: tuple[float], **options: Any) -> None:
        self.sent.append(options)


def test_starts_are_read_before_ends_and_each_record_once(redis_url):
    with Redis.from_url(redis_url) as client:
        load = Load(Publish(), client)
        load.send()
        ((task_id, one),) = load.tasks.items()
        with recorded(client, task_id), recorded(client, "sent by hand"):
            load.read()
            assert load.running == 1
            ((name, begun),) = one.runs.items()
            assert begun.end is None
        load.read()
        ended = one.runs[name]
        assert ended.end > ended.start == begun.start
        assert (load.running, load.unfinished) == (0, {})
        assert client.keys("demo:*") == []
        load.read()
        assert load.tasks == {task_id: one}
        assert one.runs == {name: ended}


def test_what_is_refused_is_not_done_before_it_ran_again(redis_url):
    with Redis.from_url(redis_url) as client:
        load = Load(Publish(), client)
        load.send()
        ((task_id, one),) = load.tasks.items()
        with pytest.raises(Refused), recorded(client, task_id):
            raise Refused("a", 1)
        load.read()
        assert [(run.refused, run.did_it) for run in one.runs.values()] == [(True, False)]
        assert (load.running, list(load.unfinished)) == (0, [task_id])
        with recorded(client, task_id):
            load.read()
            assert load.running == 1
        load.read()
        assert [run.did_it for run in one.runs.values()] == [False, True]
        assert load.unfinished == {}


def test_no_more_is_sent_than_is_done(redis_url):
    with Redis.from_url(redis_url) as client:
        publish = Publish()
        load = Load(publish, client)
        for _ in range(1000):
            load.send()
        most = sum(PLATFORMS.values())
        assert len(publish.sent) == len(load.tasks) == len(load.unfinished) == most
        assert Counter(one["headers"]["platform"] for one in publish.sent) == PLATFORMS
        assert PLATFORMS[STRICT] == PLATFORMS[TWIN]

        first, sent = next(iter(load.tasks.items()))
        for _ in range(2):  # a second run of it is no second task
            with recorded(client, first):
                pass
        load.read()
        assert len(load.unfinished) == most - 1
        load.send()
        load.send()
        assert publish.sent[-1]["headers"] == load.tasks[publish.sent[-1]["task_id"]].tags
        assert publish.sent[-1]["headers"]["platform"] == sent.tags["platform"]
        assert len(load.unfinished) == most


def test_the_table_shows_how_full_each_limit_is():
    usage = Usage(
        global_=LimitUsage(current=6, max=6),
        platforms={
            "douyin": LimitUsage(current=1, max=2),
            "kuaishou": LimitUsage(current=2, max=0),
            "channels": LimitUsage(current=3, max=1, paused=True),
        },
        task_types={"publish": LimitUsage(current=0, max=0)},
        accounts={"a": LimitUsage(current=1, max=1)},
        dimensions={},
    )
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        LiveView(live).show(
            Snapshot(datetime.now(), usage, holders=[], held=0, waiting=[]),
            "3.0 s  sending: sent 20, running 6, waiting 4, done 10\nAPI  http://api",
        )
    text = console.file.getvalue()
    rows = {
        row[1]: row
        for row in re.finditer(r"^(\S+) +(█*)(░*) +(\d+) +(\S+(?: \(paused\))?) *$", text, re.M)
    }
    assert {name: (len(row[2]), len(row[3]), row[4], row[5]) for name, row in rows.items()} == {
        "global": (20, 0, "6", "6"),
        "platform:douyin": (10, 10, "1", "2"),
        "platform:kuaishou": (0, 0, "2", "unlimited"),
        "platform:channels": (20, 0, "3", "1 (paused)"),
        "task_type:publish": (0, 0, "0", "unlimited"),
        "account:a": (20, 0, "1", "1"),
    }
    assert re.search(r"sent 20, +running 6, +waiting 4, +done 10", text)
    assert "http://api" in text


# The whole


class Demo:
    """A demo that was started; its output goes to a file."""

    def __init__(self, output: Path, *arguments: str, **env: str) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [*DEMO, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
            )

    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str) -> str:
        """Wait until it printed this; return the first group."""

        def printed() -> re.Match[str] | None:
            found = re.search(pattern, self.output(), re.M)
            assert found or self.process.poll() is None, self.output()
            return found

        return wait_for(printed, what=pattern)[1]

    def descendants(self) -> set[int]:
        """Return the ids of its processes, children of children too."""
        lines = subprocess.run(
            ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        parents = {int(pid): int(parent) for pid, parent in map(str.split, lines)}
        found, last = {self.process.pid}, 0
        while len(found) != last:
            last = len(found)
            found |= {pid for pid, parent in parents.items() if parent in found}
        return found - {self.process.pid}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos; the environment is given by name."""
    started: list[Demo] = []

    def start(*arguments: str, **env: str) -> Demo:
        # Their directories are then seen, and none is left for others to find.
        env = {"TMPDIR": str(tmp_path), **env}
        started.append(Demo(tmp_path / f"demo{len(started)}.txt", *arguments, **env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()  # its children end with it
            one.process.wait()


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_a_run_of_some_seconds_ends_by_itself_and_all_that_was_sent_ran(demo, tmp_path):
    """Also where no Redis is on PATH, and the environment names somebody else's broker."""
    # So long that the strict part of it, three tenths, outlasts a machine that stands still.
    one = demo("--seconds", "20", PATH="", CELERY_BROKER_URL="redis://127.0.0.1:1/0")
    status = one.process.wait(240)
    output = one.output()
    assert status == 0, output
    rows = {
        row[1]: tuple(map(int, row.groups()[1:4]))
        for row in re.finditer(r"^(\S+).*? +(\d+) +(\d+) +(\d+) +\S+$", output, re.M)
    }
    sent, run, overlap = rows["global"]
    assert sent == run > 10
    assert 2 <= overlap <= 10
    assert rows["platform:bilibili"][2] == 1
    assert all(1 < rows[f"platform:{name}"][2] <= CEILING for name in (STRICT, TWIN))
    assert rows["platform:douyin"][2] <= 2
    accounts = {name: row for name, row in rows.items() if name.startswith("account:")}
    assert [row[2] for row in accounts.values()] == [1]
    assert sum(row[0] for name, row in rows.items() if name.startswith("platform:")) == sent
    assert f"OK: all {sent} tasks ran" in output
    assert list(tmp_path.glob("concurrency-*")) == []

    # The limit fell, and came back. How much the brake spares is for the benchmarks to say: a slow
    # machine makes a handful of calls in so short a phase.
    moves = re.findall(r"platform:xiaohongshu moved from (\d) to (\d): (.+)$", output, re.M)
    assert ("4", "2") in [move[:2] for move in moves]
    assert any(before < after for before, after, _ in moves)
    assert "xiaohongshu is strict" in output
    verdict = rf"^{STRICT} refused (\d+) of (\d+) calls; {TWIN}, .* refused (\d+) of (\d+) calls$"
    numbers = [int(number) for number in re.search(verdict, output, re.M).groups()]
    braked, without = numbers[:2], numbers[2:]
    assert braked[0] > 0
    assert without[0] > 0
    for (refused, calls), name in ((braked, STRICT), (without, TWIN)):
        assert calls - refused == rows[f"platform:{name}"][1]


def test_another_port_where_7000_is_taken_a_change_and_an_interrupt(demo, tmp_path):
    with socket.socket() as taken:
        with suppress(OSError):  # somebody else has it: as well
            taken.bind(("127.0.0.1", 7000))
            taken.listen()
        one = demo()
        api = one.wait_for(r"^API +(http://\S+) \(port 7000 is taken\)$")
        assert one.wait_for(r"^page +(http://\S+)$") == f"{api.partition('/api')[0]}/"
    assert ":7000/" not in api
    request = urllib.request.Request(
        f"{api}/config",
        method="PUT",
        data=b'{"global_max": 11}',
        headers={"Content-Type": "application/json"},
    )
    one.wait_for(r"done ([1-9])")
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["data"]["global_max"] == 11
    one.wait_for(r"(global \d+/11)")
    processes = one.descendants()
    assert len(processes) >= 4  # a server, two workers, the API

    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(180) == 0, one.output()
    sent, run = re.search(r"^global +(\d+) +(\d+) +\d+ +11\*$", one.output(), re.M).groups()
    assert sent == run
    assert f"OK: all {sent} tasks ran" in one.output()
    assert [pid for pid in processes if is_alive(pid)] == []
    assert list(tmp_path.glob("concurrency-*")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's care for orphans")
def test_nothing_lives_on_when_it_is_killed(demo):
    one = demo()
    one.wait_for(r"(sending: sent)")
    processes = one.descendants()
    assert len(processes) >= 4
    one.process.kill()
    wait_for(lambda: not any(map(is_alive, processes)), what="all gone")


def without(directory: Path, code: str) -> dict[str, str]:
    """Return an environment in which each Python runs some code first."""
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(directory)}


def test_a_worker_that_does_not_start_is_told_with_its_last_words(demo, tmp_path):
    code = (
        "import os, sys\n"
        "if 'worker' in sys.orig_argv:\n"
        "    os.write(2, b'broken on purpose\\n')\n"
        "    os._exit(3)\n"
    )
    one = demo("--seconds", "5", **without(tmp_path, code))
    assert one.process.wait(180) == 1
    output = one.output()
    assert "demo: w1@demo ended by itself (exit status 3)" in output
    assert "  | broken on purpose" in output
    assert "Traceback" not in output
    log = re.search(r"the end of its log, (\S+):$", output, re.M)[1]
    assert Path(log).read_text() == "broken on purpose\n"
