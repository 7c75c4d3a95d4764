"""Where a task's tags come from, and that a mistagged task never runs.

In the process of the tests: pytest-celery's fixtures run one worker for all of
this module, on a broker in memory.
"""

from __future__ import annotations

import functools

import pytest
from celery import signals
from celery.contrib.testing.worker import start_worker
from redis import Redis

from celery_concurrency.errors import ConcurrencyError, InvalidTag
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from tests.support.workers import settle, wait_for

RAN = []


@pytest.fixture(scope="session")
def celery_config(server):
    """What pytest-celery makes this module's app of."""
    return {
        "imports": ("celery_concurrency.signals",),
        "concurrency_redis_url": server.url(3),
        "concurrency_retry_countdown": 0.2,
        "broker_transport_options": {"polling_interval": 0.01},
    }


@pytest.fixture(scope="module")
def app(celery_session_app):
    """Its app, with the tasks below."""
    return celery_session_app


@pytest.fixture(scope="module")
def limiter(server):
    with Redis.from_url(server.url(3)) as client:
        client.flushdb()
        settle(client)
    connection = connect(server.url(3))
    yield Limiter(connection)
    connection.close()


@pytest.fixture(scope="module")
def tasks(app, limiter):
    """Tasks that return the limits which their run holds, with every kind of declaration."""

    def limits(task):
        token = f"{task.request.id}:"
        start = b"concurrency:semaphore:"
        return sorted(
            key.removeprefix(start).decode()
            for key in limiter.redis.keys(start + b"*")
            if any(member.decode().startswith(token) for member in limiter.redis.zrange(key, 0, -1))
        )

    def make(name, **options):
        @app.task(bind=True, name=name, shared=False, **options)
        def task(self, user_id=None, flag="f", *rest, **kwargs):
            RAN.append(name)
            return limits(self)

        return task

    account = {"account": lambda user_id, other: user_id}

    @app.task(bind=True, name="strict", shared=False, concurrency=account)
    def strict(self, user_id, /, kind="k", *, other="o"):
        RAN.append("strict")
        return limits(self)

    made = [
        make("untagged"),
        make("values", concurrency={"platform": "douyin", "account": 7}),
        make("called", concurrency={"account": lambda user_id, **_: user_id}),
        make("few", concurrency={"account": lambda flag: flag, "type": lambda: "t"}),
        make("all", concurrency={"account": lambda **arguments: ",".join(sorted(arguments))}),
        make("partial", concurrency={"account": functools.partial("{}-{user_id}".format, "x")}),
        make("builtin", concurrency={"account": "{user_id}-{flag}".format}),
        make(
            "autoretried",
            autoretry_for=(OSError,),
            concurrency={"account": lambda user_id: user_id},
        ),
        make("typed", concurrency={"task_type": lambda: "t"}),
        make("wrong", concurrency=["account"]),
        make("nothing", concurrency={"account": lambda: None}),
        make("raises", concurrency={"account": lambda user_id: user_id["id"]}),
        strict,
    ]
    return {task.name: task for task in made}


@pytest.fixture(scope="module", autouse=True)
def running(app, tasks):
    """A worker in a thread of this process, whose logging it leaves alone."""
    leave_alone = signals.setup_logging.connect(lambda **_: None, weak=False)
    with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
        yield
    signals.setup_logging.disconnect(leave_alone)


@pytest.fixture(autouse=True)
def nothing_ran():
    RAN.clear()


def run(task, *args, **options):
    return task.apply_async(args, **options).get(timeout=60, interval=0.02)


def test_a_task_without_tags_counts_in_global_alone(tasks):
    assert run(tasks["untagged"]) == ["global"]


def test_headers_are_tags_however_the_task_is_sent(app, tasks):
    headers = {"platform": "douyin", "account": "acc123", "type": "publish", "other": "x"}
    expected = ["account:acc123", "global", "platform:douyin", "task_type:publish"]
    untagged = tasks["untagged"]
    assert run(untagged, headers=headers) == expected
    assert (
        untagged.s().set(headers=headers).apply_async().get(timeout=60, interval=0.02) == expected
    )
    assert app.send_task("untagged", headers=headers).get(timeout=60, interval=0.02) == expected


def test_a_tag_may_be_called_as_its_limit_is(tasks):
    assert run(tasks["untagged"], headers={"task_type": "publish"}) == [
        "global",
        "task_type:publish",
    ]
    both = {"task_type": "publish", "type": "publish"}
    assert run(tasks["untagged"], headers=both) == ["global", "task_type:publish"]
    assert run(tasks["typed"]) == ["global", "task_type:t"]
    for tag in ("type", "task_type"):  # headers win over declarations
        assert run(tasks["typed"], headers={tag: "h"}) == ["global", "task_type:h"]


def test_a_tag_with_two_values_fails(tasks, limiter):
    with pytest.raises(InvalidTag, match=r"'type' and 'task_type' mean the same.*'a' and 'b'"):
        run(tasks["untagged"], headers={"type": "a", "task_type": "b"})
    with pytest.raises(InvalidTag), limiter.acquire(type="a", task_type="b"):
        pass
    with limiter.acquire(task_type="b") as lease:
        assert lease.limits == ("global", "task_type:b")
    assert RAN == []


def test_integers_are_names(tasks):
    assert run(tasks["untagged"], headers={"account": 42}) == ["account:42", "global"]


def test_declared_values(tasks):
    assert run(tasks["values"]) == ["account:7", "global", "platform:douyin"]


def test_headers_win_over_declarations(tasks):
    assert run(tasks["values"], headers={"account": "b"}) == [
        "account:b", "global", "platform:douyin",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "limits"),
    [
        ("called", ("u1",), {}, ["account:u1", "global"]),
        ("called", (), {"user_id": "u1", "more": 1}, ["account:u1", "global"]),
        ("few", ("u1",), {}, ["account:f", "global", "task_type:t"]),
        ("few", ("u1", "g"), {}, ["account:g", "global", "task_type:t"]),
        ("few", ("u1",), {"flag": "h"}, ["account:h", "global", "task_type:t"]),
        ("all", ("u", "f", 1), {"more": 1}, ["account:flag,more,rest,user_id", "global"]),
        ("partial", ("u1",), {}, ["account:x-u1", "global"]),
        ("builtin", ("u1",), {}, ["account:u1-f", "global"]),
        ("autoretried", ("u1",), {}, ["account:u1", "global"]),
        ("strict", (5,), {"other": 1}, ["account:5", "global"]),
    ],
)
def test_callables_are_given_arguments_by_name_however_they_were_passed(
    tasks, name, args, kwargs, limits
):
    assert run(tasks[name], *args, kwargs=kwargs) == limits


@pytest.mark.parametrize(
    "value",
    ["", None, True, 1.5, ["a"], {"a": 1}, "x" * 201, b"a"],
    ids=["empty", "none", "bool", "float", "list", "map", "long", "bytes"],
)
@pytest.mark.parametrize("tag", ["platform", "account", "type"])
def test_a_mistagged_task_fails_with_an_error_that_names_the_tag(tasks, tag, value):
    with pytest.raises(InvalidTag, match=f"tag '{tag}'"):
        run(tasks["untagged"], headers={tag: value})
    assert RAN == []


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("wrong", (), "concurrency of task wrong is"),
        ("nothing", (), "tag 'account' is neither text nor an integer"),
        ("raises", ("u1",), "tag 'account' can't be worked out from the arguments: TypeError"),
        ("called", (["a"],), "tag 'account' is neither"),
        ("strict", (), "missing a required argument"),
    ],
)
def test_a_mistake_in_a_declaration_fails_the_task(app, tasks, name, args, error):
    with pytest.raises((ConcurrencyError, TypeError), match=error):
        app.send_task(name, args).get(timeout=60, interval=0.02)
    assert RAN == []


def test_a_header_named_as_we_name_things_does_no_harm(tasks):
    headers = {"concurrency": "x", "concurrency_token": "y", "concurrency_message": "z"}
    assert run(tasks["untagged"], headers=headers) == ["global"]


def test_an_own_dimension_counts_from_the_next_task_on(tasks, limiter):
    """The worker learns of it while it runs."""
    headers = {"tenant": "t1"}
    assert run(tasks["untagged"], headers=headers) == ["global"]
    limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    try:
        assert run(tasks["untagged"], headers=headers) == ["global", "tenant:t1"]
        with pytest.raises(InvalidTag, match="tag 'tenant'"):
            run(tasks["untagged"], headers={"tenant": ""})
    finally:
        limiter.config.reset()
    assert run(tasks["untagged"], headers=headers) == ["global"]


def test_eager_runs_are_not_gated(app, tasks, limiter):
    """Neither apply() nor task_always_eager asks, whatever the tags; nor does a plain call."""
    # The run of the test before may have a result, and give its tokens back just now.
    wait_for(lambda: not limiter.redis.exists("concurrency:leases"))
    before = limiter.stats.window("total")
    assert tasks["untagged"].apply(headers={"account": ""}).get() == []
    assert tasks["untagged"]() == []
    app.conf.task_always_eager = True
    try:
        assert tasks["untagged"].apply_async(headers={"account": "a"}).get() == []
    finally:
        app.conf.task_always_eager = False
    assert limiter.stats.window("total") == before
