"""Who released a token, and who cancelled what waited: on each face, beside the history."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from celery_concurrency.limiter.actions import read_actions
from tests.support.answers import out
from tests.support.waiting import park

BASE = "/api/v1/concurrency"


@pytest.fixture
def room(limiter):
    """A token that is held, and three tasks that wait."""
    limiter.try_acquire("run:1", {"account": "a"})
    limiter.config.pause("global")
    for task_id in ("w1", "w2", "w3"):
        park(limiter, task_id, {"account": "a"})
    return limiter


def done(limiter):
    return [
        (one.operator, one.source, one.action, one.subject, one.count)
        for one in read_actions(limiter.keyspace)
    ]


def test_over_http(client, room):
    ann = {"X-Operator": "ann"}
    client.delete(f"{BASE}/tokens/run:1", headers=ann)
    client.delete(f"{BASE}/waiting/w1")
    client.delete(f"{BASE}/waiting?limit=account:a", headers=ann)
    client.delete(f"{BASE}/waiting/w1", headers=ann)  # it does not wait any more
    expected = [
        ("ann", "api", "cancelled", "account:a", 2),
        (None, "api", "cancelled", "w1", 1),
        ("ann", "api", "released", "run:1", 1),
    ]
    assert done(room) == expected
    shown = client.get(f"{BASE}/actions").json["data"]["actions"]
    assert [one["subject"] for one in shown] == ["account:a", "w1", "run:1"]
    assert abs(shown[0]["at"] - room.keyspace.now()) < 60


def test_on_the_command_line(here, room):
    out(here("release", "run:1", "--operator", "eve"))
    out(here("cancel", "w1", "w2", "--operator", "eve"))
    assert done(room) == [
        ("eve", "cli", "cancelled", "w2", 1),
        ("eve", "cli", "cancelled", "w1", 1),
        ("eve", "cli", "released", "run:1", 1),
    ]
    table = out(here("config", "history")).splitlines()
    assert table[1].endswith("eve       cli      cancelled task w2")
    assert table[3].endswith("eve       cli      released token run:1")


def test_on_the_page(desk, client, room):
    client.delete(f"{BASE}/tokens/run:1", headers={"X-Operator": "ann"})
    client.delete(f"{BASE}/waiting/w1")
    view = desk.open("configuration")
    rows = view.locator("#actions-rows tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("unknown, over HTTP")
    expect(rows.nth(0)).to_contain_text("cancelled what waited: w1 (1)")
    expect(rows.nth(1)).to_contain_text("ann (api)")
    expect(rows.nth(1)).to_contain_text("released token run:1")
    expect(view.locator("#history-rows")).to_contain_text("unknown, from a program")
    client.delete(f"{BASE}/waiting/w2")  # the version of the configuration is the same
    expect(rows).to_have_count(3)
