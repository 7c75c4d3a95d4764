"""The door where Redis' answer doesn't come: the child settles what the main process can't know."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from celery.worker.request import Request
from kombu import Queue

from celery_concurrency.errors import LimiterUnavailable, OutOfMemory
from celery_concurrency.limiter import Denied
from celery_concurrency.worker import door
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.celery_compat import headers_of, sent_along
from celery_concurrency.worker.door import Door, keeps_results
from celery_concurrency.worker.hooks import connect_hooks, gate_all_tasks
from celery_concurrency.worker.run import receive
from tests.support.floor import Floor
from tests.support.workers import settle

HEADERS = {"account": "a"}


def work():
    return "ran"


@pytest.fixture
def app(redis_url):
    app = Celery("door", broker=redis_url, backend=redis_url, set_as_current=False)
    connect_hooks()
    gate_all_tasks()
    app.task(work, name="work", shared=False)
    app.finalize()
    # Nobody here waits for a result: it would look for a server that is gone.
    app.backend.on_task_call = lambda producer, task_id: None
    with app.connection_for_read() as connection:
        app.channel = connection.default_channel
        yield app
    app.close()


@pytest.fixture
def scene(app, redis):
    """Someone holds the account, someone waits, and the door knows."""
    settle(redis)
    limiter = limiter_of(app)
    limiter.config.sync()
    floor = Floor(limiter, redis)
    holder = floor.hold(**HEADERS)
    floor.wait("first", **HEADERS)
    ours = Door(app)
    ours.note_denied(received(app))
    return SimpleNamespace(app=app, limiter=limiter, floor=floor, holder=holder, door=ours)


def received(app):
    """Return the request of a message that was sent and received."""
    task = app.tasks["work"]
    task.apply_async(headers=HEADERS)
    message = Queue("celery")(app.channel).get()
    request = Request(message, app=app, task=task, on_ack=lambda *_: message.ack(), hostname="w")
    receive(request)
    return request


def in_the_pool(request):
    """Let a child run it, as far as it comes; return its state."""
    task, id = request.task, request.id
    build_tracer(task.name, task, app=request.app)(id, (), {}, headers_of(request))
    return request.app.AsyncResult(id).state


@pytest.fixture
def loses_the_reply(scene, monkeypatch):
    """Each join is done, and nobody hears of it."""
    join = scene.limiter.join

    def lose_the_reply(*args):
        join(*args)
        raise LimiterUnavailable("no reply")

    monkeypatch.setattr(scene.limiter, "join", lose_the_reply)


@pytest.mark.usefixtures("loses_the_reply")
def test_a_message_whose_join_got_no_answer_waits_once(scene, redis):
    request = received(scene.app)
    assert scene.door.lets_in(request)
    assert isinstance(sent_along(request).outcome, Denied)
    assert scene.floor.waiting() == {"first", request.id}
    assert in_the_pool(request) == "RETRY"
    assert scene.floor.waiting() == {"first", request.id}
    assert redis.hget("concurrency:stats:counters", "parked:total") == "2"


@pytest.mark.usefixtures("loses_the_reply")
def test_a_message_whose_join_got_no_answer_keeps_the_state_in_which_it_has_ended(scene):
    """It failed in another worker before the run that knows nothing of it had a slot."""
    request = received(scene.app)
    assert scene.door.lets_in(request)
    scene.floor.limiter.release(scene.holder)
    scene.app.backend.store_result(request.id, ValueError("no"), "FAILURE")
    assert in_the_pool(request) == "FAILURE"


def test_a_message_whose_join_never_arrived_is_parked_by_the_child(scene, monkeypatch):
    def fail(*args):
        raise LimiterUnavailable("no reply")

    monkeypatch.setattr(scene.limiter, "join", fail)
    request = received(scene.app)
    assert scene.door.lets_in(request)
    assert in_the_pool(request) == "PENDING"
    assert scene.floor.waiting() == {"first", request.id}


def test_a_message_for_which_redis_has_no_memory_asks_in_the_pool(scene, monkeypatch):
    def refuse(*args):
        raise OutOfMemory

    monkeypatch.setattr(scene.limiter, "join", refuse)
    request = received(scene.app)
    assert scene.door.lets_in(request)
    assert sent_along(request).outcome is None


def test_a_group_is_forgotten_of_which_nobody_waits(scene):
    scene.floor.room.cancel("first")
    assert scene.door.lets_in(received(scene.app))
    assert not scene.door._groups


def test_after_an_answer_that_did_not_come_others_go_to_the_pool_at_once(scene, monkeypatch):
    """The main process is not held up message by message; who is denied there opens it again."""
    calls = []

    def fail(*args):
        calls.append(args)
        raise LimiterUnavailable("no reply")

    monkeypatch.setattr(scene.limiter, "join", fail)
    assert all(scene.door.lets_in(received(scene.app)) for _ in range(3))
    assert len(calls) == 1


def test_a_tag_that_can_not_be_worked_out_here_harms_nothing(scene):
    request = received(scene.app)
    request.task.concurrency = {"account": lambda: 1 / 0}
    headers_of(request).pop("account")
    scene.door.note_denied(request)
    assert scene.door.lets_in(request)


@pytest.mark.parametrize(
    ("kept", "is_here"),
    [
        ("redis://127.0.0.1:1/0", True),
        ("redis://127.0.0.1:1/9", True),
        ("redis://127.0.0.2:1/0", False),
        ("redis://127.0.0.1:2/0", False),
        ("sentinel://127.0.0.1:1/0", False),
        ("rpc://", False),
    ],
)
def test_whether_results_are_kept_here_is_known_by_their_address(kept, is_here):
    """Nothing answers at any of these: no server is asked."""
    app = Celery("kept", broker="memory://", backend=kept, set_as_current=False)
    app.conf.concurrency_redis_url = "redis://127.0.0.1:1/5"
    assert keeps_results(app) == is_here


def test_a_result_that_is_kept_elsewhere_is_written_by_the_pool(scene, monkeypatch):
    monkeypatch.setattr(door, "keeps_results", lambda app: False)
    assert scene.door.lets_in(received(scene.app))
    assert scene.floor.waiting() == {"first"}
