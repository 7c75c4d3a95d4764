"""Redis at its maxmemory, over HTTP and on the command line: looking and freeing go on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from celery_concurrency import metrics
from celery_concurrency.api.blueprint import ROUTES, URL_PREFIX
from celery_concurrency.cli import concurrency
from celery_concurrency.cli.snapshot import Snapshot
from tests.support.answers import assert_refused, out
from tests.support.floor import Floor
from tests.support.memory import PROGRAMS, out_of_memory, server_of


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: Path(path).name)
def server(request):
    with server_of(request.param) as server:
        yield server


@pytest.fixture
def floor(limiter, redis):
    """A run of account a; two wait behind it."""
    limiter.config.update(
        {
            "platform_max": {"x": 2, "z": {"max": 1, "mode": "observe"}},
            "adaptive": {"account:a": {"min": 1, "max": 5}},
        }
    )
    limiter.config.pause("platform:y")
    limiter.cooldowns.set("account:cold", 60)
    one = Floor(limiter, redis)
    one.holder = one.hold(account="a", platform="x")
    one.wait("w1", account="a", platform="x")
    one.wait("w2", account="a", platform="x")
    limiter.release(one.hold("ended", account="b"))
    limiter.durations.tally()
    return one


def looks():
    """Return the address of each route that reads, with a task that waits where it wants one."""
    for route in ROUTES:
        if route.method == "GET" and route.path != "/health":
            path = re.sub("<.*:task_id>", "w1", route.path)
            yield f"{path}?limit=account:a" if path == "/adaptive/history" else path


@pytest.mark.parametrize("path", list(looks()))
def test_whoever_looks_is_answered(client, floor, redis, path):
    before = client.get(URL_PREFIX + path)
    with out_of_memory(redis):
        now = client.get(URL_PREFIX + path)
        assert now.status_code == before.status_code == 200
    if path in ("/config", "/usage", "/waiting/w1"):
        assert now.json == before.json


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/waiting/w1", None),
        ("DELETE", "/waiting?limit=account:a", None),
        ("DELETE", "/tokens/{holder}", None),
        ("DELETE", "/cooldowns?limit=account:cold", None),
        ("PUT", "/config", {"global_max": 9, "paused": []}),
        ("POST", "/reset", None),
        ("POST", "/config/rollback", {"version": 1}),
    ],
)
def test_whoever_frees_memory_may(client, floor, redis, method, path, body):
    path = URL_PREFIX + path.format(holder=floor.holder)
    with out_of_memory(redis):
        assert client.open(path, method=method, json=body).status_code == 200


def test_a_cool_down_is_refused(client, floor, redis):
    body = {"limit": "account:a", "seconds": 60}
    with out_of_memory(redis):
        answer = client.post(f"{URL_PREFIX}/cooldowns", json=body)
        assert_refused(answer, 503, "out_of_memory")
        shown = client.get(f"{URL_PREFIX}/cooldowns").json["data"]
    assert [one["limit"] for one in shown["cooldowns"]] == ["account:cold"]


@pytest.mark.parametrize(("language", "says"), [("zh", "内存已满"), ("en", "out of memory")])
def test_health_says_that_nobody_is_admitted(client, floor, redis, language, says):
    headers = {"Accept-Language": language}
    with out_of_memory(redis):
        answer = client.get(f"{URL_PREFIX}/health", headers=headers)
        [detail] = assert_refused(answer, 503, "out_of_memory")
        assert says in answer.json["message"]
        assert detail["field"] == "maxmemory"
        assert answer.headers["Retry-After"] == "5"
    assert client.get(f"{URL_PREFIX}/health", headers=headers).status_code == 200


def test_the_metrics_say_so(limiter, redis):
    assert b"\ncelery_concurrency_out_of_memory 0.0\n" in metrics.expose(limiter)
    with out_of_memory(redis):
        assert b"\ncelery_concurrency_out_of_memory 1.0\n" in metrics.expose(limiter)


#: Each command that ends by itself, with what it is called with.
COMMANDS = {
    "usage": [["--json"], []],
    "stats": [[], ["--json"]],
    "config": [["get"], ["history"], ["set", "global_max=4"], ["reset", "--yes"]],
    "pause": [["account:b"]],
    "resume": [["platform:y"], ["account:cold"]],
    "cool": [["account:cold", "--off"]],
    "adaptive": [[], ["--json"]],
    "observed": [[], ["--json"]],
    "enforce": [["platform:z"]],
    "cooldowns": [[], ["--json"]],
    "tokens": [[], ["--json"]],
    "workers": [[], ["--json"]],
    "release": [["{holder}"]],
    "waiting": [[], ["w1"], ["--json"]],
    "cancel": [["w2"]],
    "drain": [[]],
    "purge": [["--yes"]],
}


def test_all_commands_are_tried():
    assert {*COMMANDS, "monitor", "serve"} == set(concurrency.list_commands(None))


@pytest.mark.parametrize(
    "arguments", [[name, *more] for name in COMMANDS for more in COMMANDS[name]]
)
def test_the_command_line_goes_on(here, floor, redis, arguments):
    with out_of_memory(redis):
        out(here(*(one.format(holder=floor.holder) for one in arguments)))


def test_metrics_are_answered_by_a_server_that_takes_no_writes(client, floor, redis):
    redis.replicaof("127.0.0.1", 1)
    try:
        assert client.get(f"{URL_PREFIX}/health").status_code == 503
        found = client.get(f"{URL_PREFIX}/metrics")
    finally:
        redis.replicaof("NO", "ONE")
    assert found.status_code == 200
    assert "celery_concurrency_out_of_memory 0.0" in found.text


def test_the_monitor_goes_on(limiter, floor, redis):
    with out_of_memory(redis):
        assert len(Snapshot.of(limiter).waiting) == 2


def test_what_is_drained_is_in_the_queue(here, floor, redis):
    with out_of_memory(redis):
        out(here("drain"))
        assert json.loads(out(here("waiting", "--json")))["waiting"] == []
    assert sorted(floor.tasks_back()) == ["w1", "w2"]
