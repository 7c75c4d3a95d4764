"""Queues whose tasks have their limits in Redis servers of their own, with real workers."""

from __future__ import annotations

import json
import types

import pytest
from click.testing import CliRunner

from celery_concurrency.cli import concurrency
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.apps import forget, limiter_of
from tests.support.recording import highest_overlap, read_records
from tests.support.sites import site
from tests.support.workers import Worker, settle, wait_for

HEADERS = {"account": "a"}


@pytest.fixture(scope="module")
def america():
    with Server() as america:
        yield america


@pytest.fixture
def world(server, america, tmp_path):
    """The project; Europe's limits are where the broker is, America's are elsewhere."""
    with connect(america.url()) as client:
        client.flushall()
        settle(client, "limits")
    env = {"EU_URL": server.url(), "US_URL": america.url()}
    with site(server, tmp_path, "namespaces", **env) as world:
        yield world
        forget(world.tasks.app)


def start(world, *queues, **env):
    return world.start(env, concurrency=2, arguments=("-Q", ",".join(queues)))


def test_each_has_its_limits_in_its_own_redis(world, america):
    """The same account may run once in each; one waits in its Redis, and goes on by its release."""
    europe = start(world, "eu.a", "eu.b")
    there = start(world, "us.a", WAITING="handoff")
    assert "this worker serves the namespace eu" in europe.output()
    assert "start as soon as there is room (the broker is the Redis" in europe.output()
    assert "this worker serves the namespace us" in there.output()
    publish, limiters = world.tasks.publish, {}
    for name in ("eu", "us"):
        limiters[name] = limiter_of(world.tasks.app, name)
    with limiters["eu"].acquire(account="a"):
        waiting = publish.apply_async(queue="eu.b", headers=HEADERS)
        world.wait_until_parked(waiting)
        assert publish.apply_async(queue="us.a", headers=HEADERS).get(timeout=30) == there.name
        assert waiting.state == "RETRY"
        with limiters["us"].acquire(account="a"):
            outbound = publish.apply_async(queue="us.a", headers=HEADERS)
            with connect(america.url()) as client:
                wait_for(lambda: client.exists("limits:groups"), what="it waits in America")
        assert outbound.get(timeout=30) == there.name
    assert waiting.get(timeout=30) == europe.name
    sent = [
        publish.apply_async((0.05,), queue=queue, headers=HEADERS)
        for queue in ("eu.a", "eu.b", "us.a") * 4
    ]
    workers = {result.id: result.get(timeout=60) for result in sent}
    runs = [run for run in read_records(world.url) if run.task_id in workers]
    for worker in (europe, there):
        assert highest_overlap(one for one in runs if workers[one.task_id] == worker.name) == 1
    with connect(america.url()) as client:
        assert {key.split(b":")[0] for key in client.scan_iter()} == {b"limits"}
        assert client.hget("limits:stats:counters", "acquired:total") == b"7"


def test_a_queue_that_a_worker_was_told_to_consume_later_keeps_its_tasks(world):
    """They run nowhere until a worker of their namespace is there, and none is lost."""
    europe = start(world, "eu.a")
    control = world.tasks.app.control
    # A worker says that it is ready before it listens.
    wait_for(lambda: control.add_consumer("us.a", destination=[europe.name], reply=True, timeout=5))
    astray = world.tasks.publish.apply_async(queue="us.a", headers=HEADERS)
    world.wait_until_waiting(astray)
    assert "waits for a worker of the namespace 'us': this one serves 'eu'" in europe.output()
    assert "control cancel_consumer us.a" in str(astray.result)
    assert world.tasks.publish.apply_async(queue="eu.a").get(timeout=30) == europe.name
    control.cancel_consumer("us.a", destination=[europe.name], reply=True, timeout=60)
    there = start(world, "us.a")
    assert astray.get(timeout=30) == there.name


def test_a_worker_of_two_namespaces_does_not_start(world, tmp_path):
    worker = Worker(world.project, tmp_path / "mixed.log", arguments=("-Q", "eu.a,us.a"))
    assert worker.wait_until_ended() != 0
    assert "queues are of several namespaces: 'eu.a' (eu), 'us.a' (us)" in worker.output()
    assert "start a worker for each, with -Q" in worker.output()


def test_the_command_line_is_told_which(world, monkeypatch):
    context = types.SimpleNamespace(app=world.tasks.app)

    def said(*arguments):
        return CliRunner().invoke(concurrency, arguments, obj=context)

    lost = said("usage")
    assert lost.exit_code == 1
    assert "--namespace NAME" in lost.stderr
    assert said("--namespace", "us", "config", "set", "global_max=3").exit_code == 0
    for name, most in (("us", 3), ("eu", 0)):
        done = said("--namespace", name, "usage", "--json")
        assert json.loads(done.stdout)["global"]["max"] == most, done.output
    wrong = said("--namespace", "uss", "usage")
    assert (wrong.exit_code, wrong.stderr.strip()) == (
        1,
        "Error: concurrency_namespaces has no 'uss': use us",
    )
    forget(world.tasks.app)
    monkeypatch.setenv("CONCURRENCY_NAMESPACE", "us")
    assert json.loads(said("usage", "--json").stdout)["global"]["max"] == 3
