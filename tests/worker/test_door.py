"""The door where Redis' answer doesn't come: the child settles what the main process can't know."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from celery import Celery, signals
from celery.app.trace import build_tracer
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu import Queue

from celery_concurrency.errors import LimiterUnavailable, OutOfMemory
from celery_concurrency.limiter import Denied
from celery_concurrency.scripts.constants import DISCARD, LOOK_AHEAD, PARKED, REDELIVERED
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


class Consumer(SimpleNamespace):
    """What the door needs of a worker's; as a signal's sender it has a hash."""

    __hash__ = object.__hash__


@pytest.fixture
def looks_ahead(scene):
    """The door has a consumer; return what signals were told of requests that were received."""
    scene.door.consumer = Consumer(
        app=scene.app, hostname="w", event_dispatcher=None, connection_errors=(),
        disable_rate_limits=False, task_buckets={"work": None},
    )  # fmt: skip
    told = []

    def note(request, **_):
        told.append(request.id)

    signals.task_received.connect(note, weak=False)
    Queue("celery")(scene.app.channel).declare()
    scene.app.channel.basic_consume("celery", False, None, "tag")
    yield told
    scene.app.channel.basic_cancel("tag")
    signals.task_received.disconnect(note)


def sent(app, **options):
    """Send a message that no worker has received yet; return its task's id."""
    return app.tasks["work"].apply_async(**{"headers": HEADERS, **options}).id


def in_the_queue(redis):
    """Return the ids of what is in the queue, in the order of its delivery."""
    return [json.loads(text)["headers"]["id"] for text in redis.lrange("celery", 0, -1)[::-1]]


def test_those_that_come_next_and_wait_too_are_parked_from_their_queue(scene, redis, looks_ahead):
    first = received(scene.app)
    following = [sent(scene.app) for _ in range(2)]
    free = sent(scene.app, headers={"account": "free"})
    last = sent(scene.app)
    assert not scene.door.lets_in(first)
    assert in_the_queue(redis) == [free]
    assert scene.floor.waiting() == {"first", first.id, *following, last}
    assert looks_ahead == [*following, last]
    assert {scene.app.AsyncResult(id).state for id in (*following, last)} == {"RETRY"}


def test_they_go_on_in_the_order_in_which_they_came(scene, redis, looks_ahead):
    scene.floor.room.cancel("first")
    scene.floor.wait("second", **HEADERS)
    first = received(scene.app)
    following = [sent(scene.app) for _ in range(3)]
    assert not scene.door.lets_in(first)
    order = redis.zrange('concurrency:group:["global", "account:a"]', 0, -1)
    assert order == ["second", first.id, *following]


def test_no_more_are_looked_at_than_a_few(scene, redis, looks_ahead):
    first = received(scene.app)
    for _ in range(LOOK_AHEAD + 3):
        sent(scene.app)
    assert not scene.door.lets_in(first)
    assert redis.llen("celery") == 3


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 100},
        {"expires": 100},
        {"headers": {"account": "b"}},
        {"headers": {**HEADERS, DISCARD: True}},
        {"headers": {**HEADERS, PARKED: {"as": "x:1", "score": 1, "limits": ["global"]}}},
        {"headers": {**HEADERS, REDELIVERED: True}},
    ],
)
def test_what_is_unusual_or_free_stays_in_its_queue(scene, redis, looks_ahead, options):
    first = received(scene.app)
    id = sent(scene.app, **options)
    assert not scene.door.lets_in(first)
    assert in_the_queue(redis) == [id]
    assert not looks_ahead


def test_what_is_revoked_or_rate_limited_stays_in_its_queue(scene, redis, looks_ahead):
    first, second = received(scene.app), received(scene.app)
    id = sent(scene.app)
    worker_state.revoked.add(id)
    assert not scene.door.lets_in(first)
    worker_state.revoked.discard(id)
    scene.door.consumer.task_buckets["work"] = object()
    assert not scene.door.lets_in(second)
    assert in_the_queue(redis) == [id]


def test_what_another_worker_has_taken_meanwhile_is_its_own(scene, redis, looks_ahead, monkeypatch):
    first = received(scene.app)
    sent(scene.app)
    join = scene.limiter.join

    def lose_to_another(*args):
        answer = join(*args)
        redis.rpop("celery")
        return answer

    monkeypatch.setattr(scene.limiter, "join", lose_to_another)
    assert not scene.door.lets_in(first)
    assert scene.floor.waiting() == {"first", first.id}
    assert not looks_ahead
    assert scene.door._groups, "others of its group wait all the same"


@pytest.mark.parametrize("by_the_door", [False, True])
def test_what_is_handed_over_meanwhile_is_read_first(
    scene, redis, looks_ahead, monkeypatch, by_the_door
):
    """Its room is idle until a worker has it, whether the door parked it or a child."""
    scene.floor.room.cancel("first")
    waits = received(scene.app)
    if by_the_door:
        scene.floor.wait("second", **HEADERS)
        assert not scene.door.lets_in(waits)
        scene.floor.room.cancel("second")
    else:
        in_the_pool(waits)
    first = received(scene.app)
    later = sent(scene.app)
    join = scene.limiter.join

    def release_meanwhile(*args):
        answer = join(*args)
        scene.limiter.release(scene.holder)
        return answer

    monkeypatch.setattr(scene.limiter, "join", release_meanwhile)
    assert not scene.door.lets_in(first)
    assert in_the_queue(redis) == [waits.id, later]


@pytest.mark.parametrize("is_done", [False, True])
def test_an_answer_that_does_not_come_leaves_each_message_in_one_place(
    scene, redis, looks_ahead, monkeypatch, is_done
):
    first = received(scene.app)
    id = sent(scene.app)
    join = scene.limiter.join

    def lose_the_reply(waiter, rank, here, text=b""):
        if not text or is_done:
            answer = join(waiter, rank, here, text)
        if text:
            raise LimiterUnavailable("no reply")
        return answer

    monkeypatch.setattr(scene.limiter, "join", lose_the_reply)
    assert not scene.door.lets_in(first)
    assert (id in scene.floor.waiting(), in_the_queue(redis)) == (is_done, [] if is_done else [id])


def test_where_nobody_waits_any_more_they_stay_in_their_queue(
    scene, redis, looks_ahead, monkeypatch
):
    first = received(scene.app)
    id = sent(scene.app)
    join = scene.limiter.join

    def join_and_cancel(*args):
        answer = join(*args)
        scene.limiter.config.update({"enabled": False})
        return answer

    monkeypatch.setattr(scene.limiter, "join", join_and_cancel)
    assert not scene.door.lets_in(first)
    assert id in in_the_queue(redis)
