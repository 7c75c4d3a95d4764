"""The examples run as they are, with real workers: a task waits, and then runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from tests.support.ports import free_port
from tests.support.workers import Worker, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(redis_url, limiter, monkeypatch, tmp_path):
    """Starts a worker of an example; returns an app to send tasks with."""
    workers = []

    def start(directory: str, app: str) -> Celery:
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("PYTHONPATH", str(EXAMPLES / directory))
        workers.append(Worker(app, tmp_path / "worker.log"))
        workers[-1].wait_until_ready()
        return Celery(broker=redis_url, backend=redis_url, set_as_current=False)

    yield start
    for one in workers:
        one.stop()


def wait_until_waiting(result, limit):
    wait_for(lambda: result.state == "RETRY", what=f"{result.id} waits")
    assert f"waits for {limit} (" in str(result.info)


def test_tenants(example, limiter, cli):
    sender = example("tenants", "tasks")
    changed = cli("config", "set", "dimensions.tenant.overrides.beta=1", app="tasks")
    assert changed.returncode == 0, changed.stderr
    with limiter.acquire(tenant="beta"):
        waiting = sender.send_task("tasks.report", ("beta", "May"))
        wait_until_waiting(waiting, "tenant:beta")
        by_header = sender.send_task("tasks.report", ("x", "May"), headers={"tenant": "beta"})
        wait_until_waiting(by_header, "tenant:beta")
        assert sender.send_task("tasks.report", ("acme", "May")).get(timeout=60) == "acme: May"
    assert waiting.get(timeout=60) == "beta: May"
    assert by_header.get(timeout=60) == "x: May"


def test_django(example, limiter):
    pytest.importorskip("django")
    sender = example("django_site", "mysite")
    with limiter.acquire(account="acc123"):
        waiting = sender.send_task("videos.tasks.publish", ("acc123", "v1"))
        wait_until_waiting(waiting, "account:acc123")
        assert limiter.usage().platforms["douyin"].max == 2
        limiter.config.update({"paused": ["global"]})
        assert sender.send_task("videos.tasks.tidy_up").get(timeout=60) == "tidied up"
        limiter.config.update({"paused": []})
    assert waiting.get(timeout=60) == "v1 by acc123"


def test_django_sends_from_its_shell(example):
    sender = example("django_site", "mysite")
    done = subprocess.run(
        [
            *(sys.executable, EXAMPLES / "django_site" / "manage.py", "shell", "--no-imports"),
            *("-c", "from videos.tasks import publish; print(publish.delay('a', 'v2').id)"),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    task_id = done.stdout.strip().splitlines()[-1]
    assert sender.AsyncResult(task_id).get(timeout=60) == "v2 by a"


@contextmanager
def web_app(log: Path, *command: str):
    """Run an example's web app as its README does; gives a function that asks it."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            env={**os.environ, "OPERATOR_PASSWORD": "secret"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def ask(path, data=None, **options):
        headers = {
            "Content-Type": "application/json",
            "Authorization": "Basic " + b64encode(b"ann:secret").decode(),
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            None if data is None else json.dumps(data).encode(),
            headers,
            **options,
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            text = reply.read().decode()
            return json.loads(text) if "json" in reply.headers["Content-Type"] else text

    try:
        wait_for(lambda: re.search("running on", log.read_text(), re.I), what="it listens")
        yield ask
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(
    ("directory", "command", "mounted"),
    [
        ("flask_shop", ("flask", "--app", "web", "run"), ""),
        ("fastapi_shop", ("uvicorn", "web:app"), "/limits"),
    ],
)
def test_a_web_app_has_the_api(example, limiter, tmp_path, directory, command, mounted):
    example(directory, "tasks")
    api = f"{mounted}/api/v1/concurrency"
    with web_app(tmp_path / "web.log", *command) as ask:
        with limiter.acquire(account="acc123"):
            task = ask("/videos", {"account": "acc123", "video": "v1"})["task"]
            wait_for(lambda: ask(f"/videos/{task}")["state"] == "RETRY", what="it waits")
            usage = ask(f"{api}/usage")["data"]
            assert usage["accounts"]["acc123"]["current"] == 1
            ask(f"{api}/config", {"account_max": 2}, method="PUT")
            wait_for(lambda: ask(f"/videos/{task}")["result"] == "v1 by acc123", what="it runs")
        history = ask(f"{api}/config/history")["data"]
        assert "ann" in json.dumps(history)
        if mounted:
            assert 'data-api="api/v1/concurrency"' in ask(mounted)
