"""Whatever Celery does with a task: it ends as without us, however often it had to wait."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from celery import VERSION, chain, chord, group
from kombu import Connection

from tests.support.recording import highest_overlap, read_records
from tests.support.sites import RAN, site
from tests.support.workers import wait_for

#: What a worker logs of a message that its main process parks.
AT_THE_DOOR = "and is parked as it arrives"


@pytest.fixture(scope="module", params=["retry", "auto", "door"])
def canvas(server, tmp_path_factory, request):
    # Without the variable, a worker that reads pickle refuses to run as root, as in a container.
    env = {"C_FORCE_ROOT": "1", "WAITING": request.param.replace("door", "handoff")}
    with site(server, tmp_path_factory.mktemp("canvas"), "canvas", **env) as one:
        one.by_door = request.param == "door"
        one.start(concurrency=3)
        yield one


@pytest.fixture(autouse=True)
def nothing_left(canvas):
    """Each test begins with no note of others, and leaves no token."""
    canvas.redis.delete(RAN)
    yield
    canvas.wait_until_free()


@contextmanager
def busy(canvas, **tags):
    """Hold what these tags need; with the door, another waits as well, and the door knows."""
    with canvas.held(**tags):
        parked = canvas.output().count(AT_THE_DOOR)
        if canvas.by_door:
            wait_until_known(canvas, tags)
            parked += 1
        yield
        wait_for(lambda: canvas.output().count(AT_THE_DOOR) > parked or not canvas.by_door)


def wait_until_known(canvas, tags):
    """Let tasks without any note wait until the worker's main process parks them itself."""

    def is_known():
        result = canvas.tasks.quiet.apply_async(headers=tags)
        wait_for(lambda: f"[{result.id}] waits " in canvas.output())
        return canvas.output().count(AT_THE_DOOR) > before

    before = canvas.output().count(AT_THE_DOOR)
    wait_for(is_known)


def contended(canvas, signature):
    """Send it off while its account is busy; return it when its first task was told to wait."""
    with busy(canvas, account="canvas"):
        before = canvas.output().count(" waits for account:canvas ")
        result = signature.apply_async()
        wait_for(lambda: canvas.output().count(" waits for account:canvas ") > before)
        assert not canvas.ran()
    return result


def test_chain(canvas):
    add = canvas.tasks.add
    result = contended(canvas, chain(add.s(1, 2), add.s(10), add.s(100)))
    assert result.get(timeout=60) == 113
    assert canvas.ran() == ["add[1, 2]", "add[3, 10]", "add[13, 100]"]


def test_group(canvas):
    result = contended(canvas, group(canvas.tasks.add.s(1, number) for number in range(4)))
    assert result.get(timeout=60) == [1, 2, 3, 4]
    assert sorted(canvas.ran()) == ["add[0, 1]", "add[1, 1]", "add[1, 2]", "add[1, 3]"]


def test_chord(canvas):
    add, total = canvas.tasks.add, canvas.tasks.total
    result = contended(canvas, chord([add.s(1, 1), add.s(2, 2)], total.s(more=100)))
    assert result.get(timeout=60) == 106
    assert canvas.ran()[-1] == "total[2, 4]"
    assert len(canvas.ran()) == 3


def test_chain_of_groups_and_chords(canvas):
    add, total = canvas.tasks.add, canvas.tasks.total
    result = contended(
        canvas,
        chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), group(add.s(5), add.s(6))),
    )
    assert result.get(timeout=60) == [12, 13]
    assert len(canvas.ran()) == 6


def test_replace_with_a_chain(canvas):
    result = contended(canvas, chain(canvas.tasks.replaced.s(1), canvas.tasks.add.s(100)))
    assert result.get(timeout=60) == 112
    assert canvas.ran() == ["replaced", "add[1, 1]", "add[2, 10]", "add[12, 100]"]


def test_link(canvas):
    add = canvas.tasks.add
    contended(canvas, add.s(1, 1).set(link=add.s(7))).get(timeout=60)
    wait_for(lambda: len(canvas.ran()) == 2)
    assert canvas.ran() == ["add[1, 1]", "add[2, 7]"]


def test_link_error(canvas):
    result = contended(canvas, canvas.tasks.fail.s().set(link_error=canvas.tasks.failed.s()))
    with pytest.raises(ValueError, match="as it should"):
        result.get(timeout=60)
    wait_for(lambda: len(canvas.ran()) == 2)
    assert canvas.ran() == ["fail", "failed"]


def test_a_failing_chord_header_fails_the_chord(canvas):
    tasks = canvas.tasks
    result = contended(canvas, chord([tasks.add.s(1, 1), tasks.fail.s()], tasks.total.s()))
    wait_for(lambda: result.state == "FAILURE")
    wait_for(lambda: len(canvas.ran()) == 2)
    assert sorted(canvas.ran()) == ["add[1, 1]", "fail"]
    assert "as it should" in str(result.result)


def test_ignore_result(canvas):
    result = contended(canvas, canvas.tasks.add.s(1, 2).set(ignore_result=True))
    wait_for(canvas.ran)
    canvas.wait_until_free()
    # Celery 5.5 writes down every RETRY, of its own retries too.
    assert result.state == ("PENDING" if VERSION >= (5, 6) else "RETRY")
    assert canvas.ran() == ["add[1, 2]"]


def test_waiting_uses_none_of_the_tasks_own_retries(canvas):
    """Denied twice, it still has its max_retries=2 of its own."""
    with busy(canvas, account="canvas"):
        result = canvas.tasks.flaky.delay()
        canvas.wait_until_waiting(result, times=2)
        why = "others came before" if canvas.by_door else "1 of 1"
        assert str(result.info) == f"waits for account:canvas ({why})"
    with pytest.raises(ValueError, match="no luck"):
        result.get(timeout=60)
    assert canvas.ran() == ["flaky 0", "flaky 1", "flaky 2"]


def test_its_own_retry_carries_nothing_of_ours_and_never_overlaps_the_first_run(canvas):
    """retry(countdown=0) is published before the first run has ended."""
    with busy(canvas, account="again"):
        result = canvas.tasks.again.apply_async(headers={"account": "again", "mine": 1})
        canvas.wait_until_waiting(result)
    assert result.get(timeout=60) == {"account": "again", "mine": 1}
    runs = [run for run in read_records(canvas.url) if run.task_id == result.id]
    assert [run.retries for run in runs] == [0, 1]
    assert highest_overlap(runs) == 1
    assert all(first.end <= second.start for first, second in pairwise(runs))


MESSAGES = {
    "plain": {},
    "pickle": {"serializer": "pickle", "args": ({1, 2}, (3, b"x"))},
    "gzip": {"compression": "gzip", "args": ("x" * 1000,)},
    "zlib-pickle": {"compression": "zlib", "serializer": "pickle", "args": (b"\xff" * 1000,)},
    "priority": {"priority": 3},
    "header": {"headers": {"mine": {"deep": [1, "ü"]}}},
    "time-limits": {"time_limit": 100, "soft_time_limit": 90},
    "expires": {"expires": datetime(2100, 1, 1, tzinfo=UTC)},
    "stamps": {"stamped_headers": ["stamp"], "stamp": "red"},
    "reply-to": {"reply_to": "somebody", "correlation_id": "c"},
    "lineage": {"root_id": "root", "parent_id": "parent"},
    "queue": {"queue": "other"},
    "exchange": {"exchange": "other", "routing_key": "other"},
    "shadow": {"shadow": "another name"},
    "kwargs": {"kwargs": {"a": 1, "b": [None, "ü"]}},
    "argsrepr": {"argsrepr": "(hidden)"},
}


@pytest.mark.parametrize("options", MESSAGES.values(), ids=MESSAGES)
def test_a_message_that_waited_arrives_as_one_that_did_not(canvas, request, options):
    """Twice on its way, it is in all that a body can see what it was."""
    account = f"message-{request.node.callspec.id}"
    options = {**options, "headers": {**options.get("headers", {}), "account": account}}
    seen = canvas.tasks.seen
    without = seen.apply_async(**options)
    expected = without.get(timeout=60)
    with busy(canvas, account=account):
        waited = seen.apply_async(**options)
        canvas.wait_until_waiting(waited, times=2)
    assert comparable(waited.get(timeout=60), waited) == comparable(expected, without)
    assert canvas.ran() == [f"seen {without.id}", f"seen {waited.id}"]


def comparable(view, result):
    """Return what of a body's view must be the same for two tasks that were sent alike."""
    view = json.loads(json.dumps(view).replace(result.id, "ID"))
    for own in ("delivery_tag", "expiration"):
        view["properties"].pop(own, None)
    return view


def test_a_message_of_task_protocol_1(canvas):
    """Old senders put all of a task into its body."""
    app = canvas.tasks.app
    body = {"task": canvas.tasks.seen.name, "args": [1], "kwargs": {"a": 2}, "retries": 1}
    views = []
    for times in (0, 2):
        task_id = f"protocol-1-{times}"
        result = app.AsyncResult(task_id)
        with canvas.held(**({"account": "canvas"} if times else {"account": "nobody"})):
            canvas.limiter.config.update({"global_max": 1 if times else 0})
            with Connection(canvas.url) as connection:
                connection.Producer(serializer="json").publish(
                    {**body, "id": task_id}, routing_key="celery"
                )
            if times:
                canvas.wait_until_waiting(result, times=times)
        canvas.limiter.config.reset()
        views.append(comparable(result.get(timeout=60), result))
    assert views[0] == views[1]
    assert views[0]["args"] == "(1,)"
    assert views[0]["retries"] == 1


def test_a_message_that_expires_while_it_waits_never_runs(canvas):
    with busy(canvas, account="expires"):
        result = canvas.tasks.seen.apply_async(headers={"account": "expires"}, expires=10)
        canvas.wait_until_waiting(result)
        wait_for(lambda: result.state == "REVOKED")
    assert canvas.ran() == []


def test_a_message_copied_to_two_queues_stays_two_however_often_it_waits(canvas):
    """The exchange would copy each copy again that is sent to it."""
    with canvas.held(account="copied"):
        result = canvas.tasks.app.send_task(
            canvas.tasks.seen.name,
            queue=canvas.tasks.BOTH[0],
            routing_key="both.now",
            headers={"account": "copied"},
        )
        canvas.wait_until_waiting(result, times=6)
    wait_for(lambda: len(canvas.ran()) >= 2)
    wait_for(lambda: not canvas.redis.exists("unacked", "first", "second"))
    canvas.wait_until_free()
    assert canvas.ran() == [f"seen {result.id}"] * 2
