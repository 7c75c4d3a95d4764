"""The door step by step: no answer comes, its process ends, or something is as it rarely is."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from celery import Celery, current_task, states
from celery.app.trace import build_tracer
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskRevokedError
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu import Queue
from redis.exceptions import ConnectionError

from celery_concurrency import scripts
from celery_concurrency.errors import LimiterUnavailable, OutOfMemory
from celery_concurrency.limiter import Denied
from celery_concurrency.limiter.client import RedisUnavailable
from celery_concurrency.worker import door, parking
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.celery_compat import headers_of, sent_along
from celery_concurrency.worker.door import Door, keeps_results
from celery_concurrency.worker.hooks import connect_hooks, gate_all_tasks
from celery_concurrency.worker.run import receive
from tests.support.floor import Floor
from tests.support.memory import out_of_memory
from tests.support.workers import settle

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
    assert keeps_results(app, app.backend) == is_here


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
    assert not scene.door.lets_in(request)
    assert_waits_once(scene, request)


def test_a_join_that_comes_late_after_its_task_has_run_changes_nothing(scene, copies):
    copies.fates = ["lost"] * scripts.TRIES
    request = received(scene.app)
    assert scene.door.lets_in(request)
    in_the_pool(request)
    scene.floor.room.cancel("first")
    scene.limiter.release(scene.holder)
    assert in_the_pool(next_of(scene.app)) == "SUCCESS"
    holder = scene.floor.hold(**HEADERS)
    scene.floor.wait("second", **HEADERS)
    assert copies.sent[0]() == [b"again"]
    assert scene.floor.waiting() == {"second"}
    assert scene.app.AsyncResult(request.id).state == "SUCCESS"
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
    for way in ("door", "pool"):
        request = received(scene.app, task_id=way, args=(1, "ü"), kwargs={"a": None}, **options)
        if way == "door":
            assert not scene.door.lets_in(request)
        else:
            in_the_pool(request)
        text = scene.redis.get(f"celery-task-meta-{way}")
        state[way] = json.loads(text.replace(way, "ID"))
        del state[way]["traceback"], state[way]["result"]["exc_message"]
    assert state["door"] == state["pool"]
    ttl = [scene.redis.ttl(f"celery-task-meta-{way}") for way in ("door", "pool")]
    assert abs(ttl[0] - ttl[1]) <= 1


def test_the_state_of_a_task_with_a_backend_of_its_own_is_written_there(scene):
    """And not, under that one's name, where the others' are."""
    scene.app.tasks["work"].backend = RedisBackend(app=scene.app, url="redis://127.0.0.1:1/0")
    request = received(scene.app)
    assert scene.door.lets_in(request)
    assert not scene.redis.keys("celery-task-meta-*")


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
