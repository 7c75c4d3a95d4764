"""Runs whose child was killed before their body began: what the main process makes of them."""

from __future__ import annotations

import logging
import secrets
import subprocess
import threading
from types import SimpleNamespace

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Reject, Retry
from celery.worker.request import Request

from celery_concurrency.worker import rescue
from celery_concurrency.worker.celery_compat import send_along
from celery_concurrency.worker.progress import Stage, _entry_of, note, stage_of
from tests.support.tracing import Message, run_with
from tests.support.workers import wait_for


class Base:
    """As Celery's request: it keeps how it ended."""

    def __init__(self, task_id: str = "task", *, acks_late: bool = False) -> None:
        self.id, self.name, self.app, self.worker_pid = task_id, "work", None, None
        self.task = SimpleNamespace(acks_late=acks_late)
        self.request_dict: dict[str, object] = {}
        self.run = run_with(f"{task_id}:{secrets.token_hex(8)}", message=Message())
        self.ended: BaseException | None = None
        self.timeouts: list[bool] = []
        send_along(self, self.run)

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        error = exc_info.exception
        self.ended = getattr(error, "exc", error)
        return return_ok

    def on_timeout(self, soft, timeout):
        self.timeouts.append(soft)


KilledRequest = rescue.rescuing(Base)


def killed(stage: Stage | None, **options) -> Base:
    """Return a request whose child was killed at this stage."""
    request = KilledRequest(**{"task_id": secrets.token_hex(4), **options})
    if stage:
        note(request.run.token, stage)
    end(request)
    return request


def end(request, error: Exception | None = None) -> None:
    try:
        raise error or WorkerLostError("signal 9")
    except (WorkerLostError, TimeLimitExceeded, ValueError):
        assert request.on_failure(ExceptionInfo(), return_ok=True) is True


@pytest.fixture
def placed(monkeypatch):
    """Returns the tokens of rescued runs; ``failing`` has them find no place."""
    placed = SimpleNamespace(tokens=[], failing=False, failures=0)

    def place(request, run):
        if placed.failing:
            placed.failures += 1
            raise OSError("the broker is away")
        placed.tokens.append(run.token)
        return "it waits"

    monkeypatch.setattr(rescue, "_rescue", place)
    monkeypatch.setattr(rescue, "PAUSE", 0.01)
    return placed


def test_how_far_a_run_got():
    token, other = (f"task:{secrets.token_hex(8)}" for _ in range(2))
    assert stage_of(token) is None
    for stage in Stage:
        note(token, stage)
        assert (stage_of(token), stage_of(other)) == (stage, None)
    # Another run of the same entry, which is rare: the earlier one is unknown.
    note(f"task:{crowding_out(token)}", Stage.ASKING)
    assert stage_of(token) is None


def crowding_out(token: str) -> str:
    """Return the end of another token with the same entry."""
    ends = (f"{number:08x}" for number in range(10_000_000))
    start = _entry_of(token)[1]
    return next(end for end in ends if _entry_of(end)[1] == start and end != token[-8:])


@pytest.mark.parametrize("stage", [None, Stage.BEGUN])
def test_one_that_may_have_begun_ends_as_celery_says(placed, stage):
    assert isinstance(killed(stage).ended, WorkerLostError)
    assert placed.tokens == []


def test_one_that_waits_for_its_answer_asks_anew(placed):
    request = killed(Stage.ASKING)
    assert isinstance(request.ended, Retry)
    wait_for(lambda: request.run.token in placed.tokens)


def test_an_unacknowledged_message_goes_back_by_itself(placed):
    request = killed(Stage.ASKING, acks_late=True)
    assert isinstance(request.ended, Reject)
    assert request.ended.requeue
    assert placed.tokens == []


@pytest.mark.parametrize("acks_late", [True, False])
def test_one_that_has_its_place_waits(placed, acks_late):
    assert isinstance(killed(Stage.PLACED, acks_late=acks_late).ended, Retry)
    assert placed.tokens == []


@pytest.mark.parametrize("pool", ["processes", "greenlets"])
@pytest.mark.parametrize("stage", [Stage.ASKING, Stage.PLACED])
def test_one_that_only_waits_has_not_exceeded_its_time(placed, stage, pool):
    request = KilledRequest(secrets.token_hex(4))
    note(request.run.token, stage)
    if pool == "processes":
        end(request, TimeLimitExceeded(2))
    request.on_timeout(soft=True, timeout=1)
    request.on_timeout(soft=False, timeout=2)
    assert isinstance(request.ended, Retry)
    assert request.timeouts == [True]
    if stage == Stage.ASKING:
        # Its child, which is there for a moment, leaves the message alone.
        assert stage_of(request.run.token) == Stage.TAKEN
        wait_for(lambda: request.run.token in placed.tokens)


def test_one_that_has_begun_may_exceed_its_time(placed):
    request = KilledRequest(secrets.token_hex(4))
    note(request.run.token, Stage.BEGUN)
    end(request, TimeLimitExceeded(2))
    request.on_timeout(soft=False, timeout=2)
    assert isinstance(request.ended, TimeLimitExceeded)
    assert request.timeouts == [False]


def test_a_message_gets_its_place_once_its_child_is_dead(placed):
    """Until then the child may be just placing it."""
    request = KilledRequest(secrets.token_hex(4))
    with subprocess.Popen(["sleep", "60"]) as child:
        request.worker_pid = child.pid
        note(request.run.token, Stage.ASKING)
        end(request, TimeLimitExceeded(2))
        other = killed(Stage.ASKING)
        wait_for(lambda: other.run.token in placed.tokens)
        assert request.run.token not in placed.tokens
        child.kill()
        wait_for(lambda: request.run.token in placed.tokens)


def test_a_message_that_finds_no_place_holds_up_no_other(placed, monkeypatch):
    place = rescue._rescue
    never = KilledRequest(secrets.token_hex(4))

    def place_others(request, run):
        if request is never and not placed.tokens:
            raise OSError("there is no such exchange")
        return place(request, run)

    monkeypatch.setattr(rescue, "_rescue", place_others)
    note(never.run.token, Stage.ASKING)
    end(never)
    other = killed(Stage.ASKING)
    wait_for(lambda: placed.tokens == [other.run.token, never.run.token])


def test_other_errors_are_celerys(placed):
    request = KilledRequest()
    note(request.run.token, Stage.ASKING)
    end(request, ValueError("its own"))
    assert isinstance(request.ended, ValueError)


def test_a_task_that_kills_each_child_does_so_a_few_times(placed):
    """Its own handler of a retry may be what does it."""
    requests = [killed(Stage.ASKING, task_id="deadly") for _ in range(rescue.MOST + 1)]
    ends = [type(request.ended) for request in requests]
    assert ends == [Retry] * rescue.MOST + [WorkerLostError]
    wait_for(lambda: placed.tokens == [one.run.token for one in requests[:-1]])


def test_while_the_servers_are_away_it_is_tried_again(placed, caplog):
    placed.failing = True
    request = killed(Stage.ASKING)
    wait_for(lambda: placed.failures > 1)
    placed.failing = False
    wait_for(lambda: request.run.token in placed.tokens)
    wait_for(lambda: f"[{request.id}] was not lost with its process: it waits" in caplog.text)


def test_what_finds_no_place_until_the_worker_ends_is_told(placed, caplog, monkeypatch):
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(rescue, "FINISH_SECONDS", 0.05)
    placed.failing = True
    requests = [killed(Stage.ASKING) for _ in range(2)]
    rescue.finish()
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(" may be lost")[0] for text in told] == [
        f"Task work[{request.id}]" for request in requests
    ]


def test_what_finds_a_place_after_all_breaks_nothing(monkeypatch, caplog):
    goes_on, broken = threading.Event(), []
    monkeypatch.setattr(rescue, "FINISH_SECONDS", 0.05)
    monkeypatch.setattr(rescue, "_rescue", lambda *_: str(goes_on.wait(20)))
    monkeypatch.setattr(threading, "excepthook", broken.append)
    request = killed(Stage.ASKING)
    rescue.finish()
    goes_on.set()
    wait_for(lambda: f"[{request.id}] was not lost with its process" in caplog.text or broken)
    assert broken == []


def test_a_task_with_a_request_class_of_its_own_keeps_it():
    own = rescue.rescuing(Request)
    assert issubclass(own, Request)
    assert rescue.rescuing(Request) is own
    assert rescue.rescuing("celery.worker.request:Request").__mro__[1] is Request
