"""The door step by step: no answer comes, its process ends, or something is as it rarely is."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from celery import Celery, current_task, signals, states
from celery.app.trace import build_tracer
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskRevokedError
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu import Queue
from kombu.serialization import prepare_accept_content, registry
from redis.exceptions import ConnectionError

from celery_concurrency import scripts
from celery_concurrency.errors import LimiterUnavailable, OutOfMemory, TooManyWaiting
from celery_concurrency.limiter import Denied
from celery_concurrency.limiter.client import RedisUnavailable
from celery_concurrency.scripts.constants import (
    DISCARD,
    GIVEN_UP,
    LOOK_AHEAD,
    PARKED,
    RANK,
    REDELIVERED,
)
from celery_concurrency.worker import door, parking
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.celery_compat import headers_of, sent_along
from celery_concurrency.worker.door import Door, keeps_results
from celery_concurrency.worker.hooks import connect_hooks, gate_all_tasks
from celery_concurrency.worker.progress import Stage, stage_of
from celery_concurrency.worker.run import receive
from tests.support.floor import Floor
from tests.support.memory import out_of_memory
from tests.support.workers import settle, wait_for

HEADERS = {"account": "a"}


#: The tasks whose body ran.
RAN: list[str] = []


def work(*_, **__):
    RAN.append(current_task.request.id)
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
    RAN.clear()
    redis.delete("unacked", "unacked_index")
    return SimpleNamespace(
        app=app, limiter=limiter, floor=floor, holder=holder, door=ours, redis=redis
    )


def received(app, **options):
    """Return the request of a message that was sent and received."""
    app.tasks["work"].apply_async(headers=HEADERS, **options)
    return next_of(app)


def next_of(app):
    """Return the request of the next message in the queue; None if there is none."""
    message = Queue("celery")(app.channel).get()
    if message is None:
        return None
    task = app.tasks["work"]
    request = Request(message, app=app, task=task, on_ack=lambda *_: message.ack(), hostname="w")
    receive(request)
    return request


def in_the_pool(request):
    """Let a child run it, as far as it comes; return its state."""
    task, id = request.task, request.id
    run = build_tracer(task.name, task, app=request.app)
    run(id, request.args, request.kwargs, headers_of(request))
    request.acknowledge()
    return request.app.AsyncResult(id).state


def assert_waits_once(scene, request):
    """It is filed once, acknowledged, and its state says so; and it runs once, at its turn."""
    assert scene.floor.waiting() == {"first", request.id}
    assert scene.redis.hget("concurrency:stats:counters", "parked:total") == "2"
    assert not scene.redis.exists("celery", "unacked", "unacked_index")
    assert scene.app.AsyncResult(request.id).state == "RETRY"
    scene.floor.room.cancel("first")
    scene.limiter.release(scene.holder)
    assert in_the_pool(next_of(scene.app)) == "SUCCESS"
    assert next_of(scene.app) is None
    assert [request.id] == RAN
    assert scene.floor.waiting() == set()
    assert scene.redis.keys("concurrency:semaphore:*") == []


def test_one_that_was_given_up_goes_to_the_pool_and_fails_there(scene):
    """Though its group waits, and it has no place any more."""
    refusal = ["crowded", "account:a", 1, 1]
    headers = {**HEADERS, GIVEN_UP: refusal}
    result = scene.app.tasks["work"].apply_async(headers=headers)
    request = next_of(scene.app)
    assert scene.door.lets_in(request)
    assert in_the_pool(request) == "FAILURE"
    assert result.result.args[:3] == ("account:a", 1, 1)
    assert isinstance(result.result, TooManyWaiting)
    assert scene.floor.waiting() == {"first"}
    assert RAN == []


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
    # Its child may be killed before it has begun with that.
    assert stage_of(sent_along(request).token) == Stage.ASKING
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
    assert keeps_results(app, app.backend) == is_here


def test_no_script_writes_results_into_a_cluster():
    """They are in other slots than the limiter's keys."""
    app = Celery("kept", broker="memory://", backend="redis://a:1/0", set_as_current=False)
    app.conf.concurrency_redis_url = "redis+cluster://a:1"
    assert not keeps_results(app, app.backend)


def test_a_result_that_is_kept_elsewhere_is_written_by_the_pool(scene, monkeypatch):
    monkeypatch.setattr(door, "keeps_results", lambda *_: False)
    assert scene.door.lets_in(received(scene.app))
    assert scene.floor.waiting() == {"first"}


# -- its process ends, or a connection is lost, between two steps


class Ended(BaseException):
    """The main process ends here."""


def ends(*_, **__):
    raise Ended


def ends_after(call):
    def call_and_end(*args):
        call(*args)
        raise Ended

    return call_and_end


@pytest.mark.parametrize("how", ["killed", "at the end of its worker"])
@pytest.mark.parametrize("when", ["asking", "executed", "answered", "acked"])
def test_a_main_process_that_ends_at_the_door_loses_nothing(scene, monkeypatch, when, how):
    """What it had comes again after its visibility timeout, or is put back by kombu."""
    owner, name = {
        "asking": (scene.limiter, "join"),
        "executed": (scene.limiter, "join"),
        "answered": (door.kombu_redis, "note_acked"),
        "acked": (door, "log_arrival"),
    }[when]
    change = ends_after if when == "executed" else lambda call: ends
    request = received(scene.app)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, change(getattr(owner, name)))
        with pytest.raises(Ended):
            scene.door.lets_in(request)
    qos = scene.app.channel.qos
    if how == "killed":
        qos.__dict__["visibility_timeout"] = -1
        qos.restore_visible(num=10, interval=1)
    else:
        qos.restore_unacked_once()
    again = next_of(scene.app)
    assert (again is None) == (when != "asking")
    if again:
        assert scene.door.lets_in(again)
        assert in_the_pool(again) == "RETRY"
    assert_waits_once(scene, request)


@pytest.fixture
def copies(monkeypatch):
    """Each copy of a join that is sent: what becomes of it, and a second call of the same."""
    line = SimpleNamespace(fates=[], sent=[])
    evalsha = scripts._evalsha

    def pass_on(redis, verb, *args):
        fate = line.fates.pop(0) if verb == "join" and line.fates else None
        if verb == "join":
            line.sent.append(lambda: evalsha(redis, verb, *args))
        if fate == "lost":
            raise ConnectionError
        reply = evalsha(redis, verb, *args)
        if fate == "no reply, and no memory":
            full.enter_context(out_of_memory(redis))
        if fate:
            raise ConnectionError
        return reply

    monkeypatch.setattr(scripts, "_evalsha", pass_on)
    with ExitStack() as full:
        line.end = full.close
        yield line


@pytest.mark.parametrize(
    "fates", [["lost"], ["no reply"], ["lost", "no reply"], ["no reply", "lost"]]
)
def test_a_join_whose_connection_is_lost_is_sent_again(scene, copies, fates):
    copies.fates = fates
    request = received(scene.app)
    worker_state.task_reserved(request)
    assert not scene.door.lets_in(request)
    assert request not in worker_state.reserved_requests
    assert_waits_once(scene, request)


@pytest.mark.parametrize("what", ["parked by the child", "merged"])
def test_a_join_that_comes_late_after_its_task_has_ended_changes_nothing(scene, copies, what):
    if what == "merged":
        assert not scene.door.lets_in(received(scene.app, task_id="one"))
    else:
        copies.fates = ["lost"] * scripts.TRIES
    request = received(scene.app, task_id="one")
    assert scene.door.lets_in(request) == (what != "merged")
    if what != "merged":
        in_the_pool(request)
    scene.floor.room.cancel("first")
    scene.limiter.release(scene.holder)
    assert in_the_pool(next_of(scene.app)) == "SUCCESS"
    scene.redis.delete("celery-task-meta-one")
    scene.app.backend.store_result("one", ValueError("no"), "FAILURE")
    holder = scene.floor.hold(**HEADERS)
    scene.floor.wait("second", **HEADERS)
    assert copies.sent[-1]() == [b"again"]
    assert scene.floor.waiting() == {"second"}
    assert scene.app.AsyncResult("one").state == "FAILURE"
    scene.limiter.release(holder)


def test_a_join_that_was_executed_is_known_though_memory_is_full_by_now(scene, copies):
    copies.fates = ["no reply, and no memory"]
    request = received(scene.app)
    assert not scene.door.lets_in(request)
    copies.end()
    assert_waits_once(scene, request)


def test_a_server_that_was_restarted_gets_the_script_again(scene):
    scene.redis.script_flush()
    request = received(scene.app)
    assert not scene.door.lets_in(request)
    assert_waits_once(scene, request)


@pytest.mark.parametrize("state", sorted(states.READY_STATES))
def test_a_message_that_comes_a_second_time_leaves_its_task_as_celery_would(scene, state):
    """A copy of a task that has ended waits: of all states, Celery keeps a success alone."""
    request = received(scene.app, task_id="twice")
    for task_id in ("twice", "long"):
        result = "ran" if state == "SUCCESS" else ValueError("no")
        scene.app.backend.store_result(task_id, result, state)
    assert not scene.door.lets_in(request)
    assert scene.app.AsyncResult("twice").state == in_the_pool(received(scene.app, task_id="long"))


# -- what is rarely so


def test_what_a_task_sees_of_its_state_is_what_the_pool_would_write(scene):
    """But for the traceback, and for who was there before."""
    scene.app.conf.result_extended = True
    options = {"stamped_headers": ["stamp"], "stamp": "red", "group_id": "g", "parent_id": "p"}
    state = {}
    told = scene.redis.pubsub(ignore_subscribe_messages=True)
    told.subscribe("celery-task-meta-door", "celery-task-meta-pool")
    for way in ("door", "pool"):
        request = received(scene.app, task_id=way, args=(1, "ü"), kwargs={"a": None}, **options)
        if way == "door":
            assert not scene.door.lets_in(request)
        else:
            in_the_pool(request)
        text = scene.redis.get(f"celery-task-meta-{way}")
        assert wait_for(told.get_message)["data"] == text
        state[way] = json.loads(text.replace(way, "ID"))
        del state[way]["traceback"], state[way]["result"]["exc_message"]
    assert state["door"] == state["pool"]
    told.close()
    ttl = [scene.redis.ttl(f"celery-task-meta-{way}") for way in ("door", "pool")]
    assert ttl[0] == pytest.approx(ttl[1], abs=60)


def test_the_state_of_a_task_with_a_backend_of_its_own_is_written_there(scene):
    """And not, under that one's name, where the others' are."""
    scene.app.tasks["work"].backend = RedisBackend(app=scene.app, url="redis://127.0.0.1:1/0")
    request = received(scene.app)
    assert scene.door.lets_in(request)
    assert not scene.redis.keys("celery-task-meta-*")


UNUSUAL = {
    "a broadcast": lambda request: setattr(sent_along(request), "broadcast", True),
    "redelivered": lambda request: request.delivery_info.update(redelivered=True),
    "headers of its own": lambda request: headers_of(request).update(headers={"a": 1}),
    "its own on_retry": lambda request: setattr(type(request.task), "on_retry", lambda *_: None),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_whatever_the_pool_has_to_see_to_goes_there(scene, what):
    request = received(scene.app)
    UNUSUAL[what](request)
    assert scene.door.lets_in(request)
    assert scene.floor.waiting() == {"first"}


def test_whose_turn_it_is_goes_to_the_pool_though_others_wait(scene):
    request = received(scene.app)
    assert not scene.door.lets_in(request)
    [group] = scene.redis.zrange("concurrency:groups", 0, -1)
    place = scene.redis.zscore(f"concurrency:group:{group}", request.id)
    scene.floor.wait("last", **HEADERS)
    scene.floor.room.cancel("first")
    scene.limiter.release(scene.holder)
    its_turn = next_of(scene.app)
    ticket = sent_along(its_turn).ticket
    assert (ticket.parked_as, ticket.number) == (sent_along(request).token, place)
    assert scene.door.lets_in(its_turn)
    assert in_the_pool(its_turn) == "SUCCESS"
    assert [request.id] == RAN


def test_who_goes_first_by_its_priority_brings_its_group_to_the_front(scene):
    scene.floor.room.cancel("first")
    scene.floor.wait("low", rank=3, **HEADERS)
    request = received(scene.app, priority=1)
    assert not scene.door.lets_in(request)
    [(group, place)] = scene.redis.zrange("concurrency:groups", 0, -1, withscores=True)
    assert place // RANK == 1
    assert scene.redis.zrange(f"concurrency:group:{group}", 0, 0, withscores=True) == [
        (request.id, place)
    ]


def test_where_limits_were_switched_off_nobody_waits_though_others_have_not_gone_on_yet(scene):
    scene.floor.change({"enabled": False})
    assert scene.door.lets_in(received(scene.app))
    assert scene.floor.waiting() == {"first"}


@pytest.mark.parametrize("how", ["by its id", "by a stamp", "expired"])
def test_who_was_revoked_by_now_does_not_wait(scene, how):
    """As where it was held up by its ETA or rate limit, and by stamp it is only known here."""
    request = received(scene.app, stamped_headers=["stamp"], stamp="red", expires=60)
    try:
        if how == "by its id":
            worker_state.revoked.add(request.id)
        elif how == "by a stamp":
            worker_state.revoked_stamps["stamp"] = ["red"]
        else:
            request._expires = datetime.now(UTC) - timedelta(seconds=1)
        assert scene.door.lets_in(request)
        with pytest.raises(TaskRevokedError):
            request.execute_using_pool(None)
    finally:
        worker_state.revoked.clear()
        worker_state.revoked_stamps.clear()
    assert scene.app.AsyncResult(request.id).state == "REVOKED"
    assert scene.floor.waiting() == {"first"}
    assert not scene.redis.exists("unacked")


def test_whether_the_script_acknowledged_is_known_after_the_broker_has_moved(scene, monkeypatch):
    """The servers are asked again from time to time: in between, or while one is away."""
    request = received(scene.app)
    join = scene.limiter.join

    def join_and_move(*args):
        answer = join(*args)
        monkeypatch.setattr(door, "waiting_mode_of", ends)
        return answer

    monkeypatch.setattr(scene.limiter, "join", join_and_move)
    assert not scene.door.lets_in(request)
    assert_waits_once(scene, request)


def test_a_server_that_does_not_answer_closes_the_door_whatever_it_was_asked(scene, monkeypatch):
    calls = []

    def fail(app):
        calls.append(app)
        raise RedisUnavailable("no reply")

    monkeypatch.setattr(door, "waiting_mode_of", fail)
    monkeypatch.setattr(parking, "waiting_mode_of", fail)
    assert all(scene.door.lets_in(received(scene.app)) for _ in range(3))
    assert len(calls) == 1


@pytest.mark.parametrize("foreign", ["unacked", "celery-task-meta-*"])
def test_a_user_who_may_not_write_what_is_kept_beside_it_lets_the_pool_do_that(scene, foreign):
    """The limiter's own user may have less than those of broker and results."""
    client = scene.limiter.redis
    others = [f"~{name}" for name in ("concurrency*", "celery", "tests-queue", "unacked_index")]
    others += ["~unacked", "~celery-task-meta-*"]
    others.remove(f"~{foreign}")
    scene.redis.acl_setuser("few", enabled=True, nopass=True, keys=[], categories=["+@all"])
    scene.redis.execute_command("ACL", "SETUSER", "few", "resetkeys", *others, "&*")
    pool = client.connection_pool
    pool.connection_kwargs["username"], pool.connection_kwargs["password"] = "few", "x"
    client.close()
    pool.disconnect()
    try:
        request = received(scene.app)
        assert scene.door.lets_in(request)
        assert scene.floor.waiting() == {"first"}
        assert in_the_pool(request) == "RETRY"
        assert_waits_once(scene, request)
    finally:
        scene.redis.acl_deluser("few")


# -- those that come next in its queue


class Consumer(SimpleNamespace):
    """What the door needs of a worker's; as a signal's sender it has a hash."""

    __hash__ = object.__hash__


class Opened:
    """An object whose pickle counts how often it was read."""

    times = 0

    def __setstate__(self, state):
        Opened.times += 1

    def __getstate__(self):
        return {"any": 1}


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


def test_a_body_that_the_worker_does_not_accept_stays_in_its_queue_unread(
    scene, redis, looks_ahead, monkeypatch
):
    """The worker's consumer notes on each message what it accepts, as kombu's does."""
    monkeypatch.setattr(registry, "_disabled_content_types", set())
    first = received(scene.app)
    first.message.accept = prepare_accept_content(["json"])
    id = sent(scene.app, args=(Opened(),), serializer="pickle")
    assert not scene.door.lets_in(first)
    assert in_the_queue(redis) == [id]
    assert not Opened.times


def test_a_body_that_the_worker_accepts_is_parked_from_its_queue(scene, redis, looks_ahead):
    first = received(scene.app)
    first.message.accept = prepare_accept_content(["json", "pickle"])
    sent(scene.app, serializer="pickle")
    assert not scene.door.lets_in(first)
    assert not in_the_queue(redis)


def test_a_task_that_is_received_in_a_way_of_its_own_stays_in_its_queue(
    scene, redis, looks_ahead, monkeypatch
):
    """Such as the tasks of celery-batches, which never ask for their turn."""
    first = received(scene.app)
    id = sent(scene.app)
    monkeypatch.setattr(scene.app.tasks["work"], "Strategy", "tests.worker:strategy")
    assert not scene.door.lets_in(first)
    assert in_the_queue(redis) == [id]


def test_after_a_message_that_expires_none_are_fetched(scene, looks_ahead, monkeypatch):
    """Those that follow expire as well, as a rule: each would be fetched and read in vain."""
    first = received(scene.app, expires=100)
    sent(scene.app, expires=100)
    monkeypatch.setattr(Door, "_look_ahead", lambda *_: pytest.fail("fetched what comes next"))
    assert not scene.door.lets_in(first)


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
