"""What tests share: a server of their own, an empty one for each test, a limiter on it."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
import subprocess
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis.utils
from celery import Celery
from click.testing import CliRunner
from flask.testing import FlaskClient
from redis import Redis
from xdist.scheduler import LoadFileScheduling

from celery_concurrency.api import create_app
from celery_concurrency.cli import concurrency
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing import server as testing_server
from celery_concurrency.testing.server import Server
from tests.support.browsing import Desk, chromium
from tests.support.forks import Forked
from tests.support.ports import free_port
from tests.support.serving import Serving
from tests.support.workers import Worker, import_project, kill_all, settle

# A suite that was started in the background ignores Ctrl-C; the programs it starts must not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# make compat has the tests run on other servers than the embedded one.
if os.environ.get("TEST_SERVER"):
    testing_server.find_server = lambda: os.environ["TEST_SERVER"]
# redis-py reads its own version from a file for each connection, which takes longer than the rest.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)
# A server that a test kills finds its port free when it starts again.
testing_server.free_port = free_port
# The benchmarks' are started as users start them.
Worker.is_forked = True

#: Their tests are distributed one by one: together they would take the longest.
SINGLY = ("limiter/model/test_promises.py", "project/test_docs.py")
#: The files that take longest start first, those that compute among those that wait; else one
#: process would be busy with one of them at the end.
LONGEST = (
    *SINGLY,
    "integration/test_rates.py",
    "faces/test_page_adaptive.py",
    "integration/test_handoff_fleet.py",
    "faces/test_page_moments.py",
    "integration/test_redis_lost.py",
    "integration/test_cluster.py",
    "faces/test_page_manners.py",
    "integration/test_crashes_shutdown.py",
    "limiter/test_key_bounds.py",
    "integration/test_door_workers.py",
    "faces/test_page_views.py",
    "integration/test_gated_tasks.py",
    "faces/test_page_names.py",
    "integration/test_crashes.py",
    "project/test_examples.py",
    "worker/test_logging.py",
    "project/test_dist.py",
    "worker/test_door.py",
    "integration/test_load.py",
    "integration/test_handoff.py",
    "faces/test_openapi.py",
    "faces/test_pytest_plugin.py",
    "faces/test_cli.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order within a file stays."""
    tests = Path(__file__).parent
    rank = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """Let no garbage collection look at what lives until the end: thousands of tests, modules."""
    gc.freeze()


class Scheduling(LoadFileScheduling):
    """A file at a time, but for the model's machines and the documentation's pages."""

    def _split_scope(self, nodeid: str) -> str:
        if any(f"/{name}::" in nodeid for name in SINGLY):
            return nodeid
        return super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Distribute in a way that ``--dist`` has no name for."""
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests; nothing outside of them uses it."""
    with Server() as server:
        yield server
        # A result that goes later would ask for the server, and try again for minutes.
        gc.collect()


@pytest.fixture
def redis_url(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty server; broker and result backend of ``project`` and ``worker``."""
    url = server.url()
    with Redis.from_url(url) as client:
        client.flushall()
    monkeypatch.setenv("BROKER_URL", url)
    monkeypatch.setenv("RESULT_BACKEND", url)
    return url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A plain client for looking at keys; texts, not bytes."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def limiter(redis_url: str) -> Iterator[Limiter]:
    """A limiter with the default configuration."""
    client = connect(redis_url)
    settle(client)
    yield Limiter(client)
    client.close()


@pytest.fixture
def project(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Imports a project anew, to send to: ``project("plain", COUNTDOWN="1")``.

    What is named is set in the environment, also for workers started after it.
    """

    def use(name: str, **env: str) -> ModuleType:
        for variable, value in env.items():
            monkeypatch.setenv(variable, value)
        return import_project(name)

    return use


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts worker processes and ends them: ``worker("plain", pool="threads")``.

    Takes what ``Worker`` takes.
    """
    started: list[Worker] = []
    with Redis.from_url(redis_url) as client:
        settle(client)

    def start(name: str, **options: Any) -> Worker:
        log = tmp_path / f"worker{len(started)}.log"
        one = Worker(f"tests.projects.{name}", log, **options)
        started.append(one)
        one.wait_until_ready()
        return one

    yield start
    kill_all(started)


@pytest.fixture
def celery_app(redis_url: str) -> Celery:
    """An app of its own on an empty server."""
    return Celery("api", broker=redis_url, set_as_current=False)


@pytest.fixture
def client(celery_app: Celery) -> FlaskClient:
    """A client of the admin app."""
    return create_app(celery_app).test_client()


@pytest.fixture
def english(client: FlaskClient) -> FlaskClient:
    """The same, whose answers are in English where a request asks for nothing else."""
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
    return client


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, for the tests of a module: it keeps an event loop running."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def serving(server: Server) -> Iterator[Serving]:
    """A real server of the API and its page."""
    with Serving(server.url()) as serving:
        yield serving


@pytest.fixture
def desks(browser: Any) -> Iterator[Callable[..., Desk]]:
    """Opens pages in the browser: ``desks(address, locale="zh-CN")``; in none may go wrong a thing.

    Takes what ``Desk`` takes.
    """
    opened: list[Desk] = []

    def open_desk(address: str, **options: Any) -> Desk:
        opened.append(Desk(browser, address, **options))
        return opened[-1]

    yield open_desk
    problems = [problem for one in opened for problem in one.problems]
    for one in opened:
        one.context.close()
    assert problems == []


@pytest.fixture
def desk(desks: Callable[..., Desk], serving: Serving, limiter: Limiter) -> Desk:
    """The page as served, in English, on an empty Redis."""
    return desks(serving.page)


@pytest.fixture
def cli(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``celery -A tests.projects.plain concurrency ...``."""
    numbers = itertools.count()

    def run(*arguments, app="tests.projects.plain", **env):
        number = next(numbers)
        output, errors = tmp_path / f"{number}.out", tmp_path / f"{number}.err"
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            one = Forked(("-A", app, "concurrency", *arguments), output, errors)
        status = one.wait(60)
        return subprocess.CompletedProcess(
            arguments, status, output.read_text(), errors.read_text()
        )

    return run


@pytest.fixture
def here(redis_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in this process, which is quicker where only its work is of interest."""

    def run(*arguments, input=None, broker=redis_url):
        context = types.SimpleNamespace(app=Celery("here", broker=broker, set_as_current=False))
        done = CliRunner().invoke(concurrency, arguments, input, obj=context)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run
