"""Headers that are nearly tags: told once a task, counted, and shown."""

from __future__ import annotations

import json
import logging
import re

import pytest

from celery_concurrency.limiter.stats.misnamed import read_misnamed
from celery_concurrency.worker.unknown_headers import REMEMBERED_MOST, UnknownHeaders
from tests.support.answers import out
from tests.support.workers import wait_for


@pytest.fixture
def found(limiter, caplog):
    """Notes headers and judges them; returns the tags that were told."""
    unknown = UnknownHeaders()
    caplog.set_level(logging.WARNING, logger="celery_concurrency")

    def judge(task, *headers, dimensions=()):
        caplog.clear()
        unknown.note(task, dict.fromkeys(headers, "x"))
        unknown.judge(limiter.keyspace, dimensions)
        told = [record.concurrency for record in caplog.records]
        return [(one["task_name"], one["header"], one["tag"]) for one in told]

    return judge


def counted(limiter):
    return {(one.task, one.header): one.count for one in read_misnamed(limiter.keyspace)}


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("platfrom", "platform"),
        ("Platform", "platform"),
        ("acount", "account"),
        ("account_id", "account"),
        ("types", "type"),
        ("tenent", "tenant"),
    ],
)
def test_a_header_that_is_nearly_a_tag(found, limiter, header, tag):
    assert found("publish", header, dimensions=["tenant"]) == [("publish", header, tag)]
    assert counted(limiter) == {("publish", header): 1}


def test_it_is_told_once_a_task_and_counted_always(found, limiter):
    assert len(found("publish", "platfrom")) == 1
    assert found("publish", "platfrom", "acount") == []
    assert len(found("upload", "platfrom")) == 1
    assert counted(limiter) == {
        ("publish", "platfrom"): 2, ("publish", "acount"): 1, ("upload", "platfrom"): 1,
    }  # fmt: skip


def test_other_headers_are_nobodys_business(found, limiter):
    headers = (
        *("platform", "account", "type", "task_type", "tenant", "x-request-id", "traceparent"),
        *(
            "concurrency_typ",
            "concurrency_busy",
            "concurrency_weight",
            "concurrency_parked",
            "_type",
            "sentry-trace",
            "timestamp",
            "content_type",
        ),
    )
    assert found("publish", *headers, dimensions=["tenant"]) == []
    assert counted(limiter) == {}


@pytest.mark.parametrize(
    ("header", "tag"),
    [("concurrency_bussy", "concurrency_busy"), ("concurrency_wieght", "concurrency_weight")],
)
def test_our_own_tag_that_no_limit_uses(found, header, tag):
    assert found("publish", header) == [("publish", header, tag)]


def test_a_dimension_that_comes_later(found):
    assert found("publish", "tenent") == []
    assert found("publish", dimensions=["tenant"]) == []  # the next tick
    assert found("publish", "tenent", dimensions=["tenant"]) == [("publish", "tenent", "tenant")]


def test_headers_with_a_new_name_each_time_fill_nothing(found):
    for some in range(0, 2 * REMEMBERED_MOST, 5_000):
        found("publish", *(f"h{number}" for number in range(some, some + 5_000)))
    assert len(found("publish", "platfrom")) == 1


def test_celerys_own_headers_are_known(project, worker, redis, limiter):
    """In a real worker: all that Celery puts into messages, and one of ours mistyped."""
    tasks = project("plain")
    one = worker("plain", concurrency=1)
    name = tasks.publish.name
    for header in ("platfrom", "acount"):
        headers = {header: "x"}
        tasks.publish.apply_async((1,), headers=headers, expires=60, link=tasks.publish.si(2))
        wait_for(lambda header=header: (name, header) in counted(limiter), what="counted")
    assert len(re.findall("which no limit uses", one.output())) == 1
    assert {header for _, header in counted(limiter)} == {"platfrom", "acount"}


def test_usage_and_metrics_show_it(found, limiter, here, client):
    for _ in range(2):
        found("publish", "platfrom")
    note = (
        "the header 'platfrom' of task publish (2 times) limits nothing: did you mean 'platform'?"
    )
    assert note in here("usage").stderr
    shown = {"task": "publish", "header": "platfrom", "tag": "platform", "count": 2}
    assert json.loads(out(here("usage", "--json")))["misnamed_headers"] == [shown]
    metrics = client.get("/metrics").get_data(as_text=True)
    assert "celery_concurrency_misnamed_headers_total 2.0" in metrics


def test_the_page_shows_it(found, limiter, desk):
    found("publish", "platfrom")
    desk.open()
    desk.page.get_by_text("which limits nothing: did you mean platform?").wait_for()
