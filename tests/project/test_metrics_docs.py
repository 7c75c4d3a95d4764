"""The Grafana board and the documentation of the metrics: all that they name is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from celery_concurrency import metrics
from celery_concurrency.limiter import Limiter

DOCS = Path(__file__).parents[2] / "docs"
BOARD = json.loads((DOCS / "grafana" / "celery-concurrency.json").read_text("utf-8"))
TEXT = (DOCS / "metrics.md").read_text("utf-8")
NAME = r"\bcelery_concurrency_[a-z_]+\b"


@pytest.fixture
def exposed(limiter: Limiter) -> dict[str, Any]:
    """All families, each with a sample."""
    limiter.config.update(
        {
            "platform_max": {"douyin": {"max": 1, "mode": "observe"}},
            "rates": {"platform:douyin": [{"max": 1, "per": 30}]},
            "adaptive": {"platform:douyin": {"min": 1, "max": 9}},
            "waiting": {"platform:douyin": {"most": 5}},
        }
    )
    limiter.try_acquire("a", {"platform": "douyin"})
    limiter.refuse("a", ("global", "platform:douyin"), "platform:douyin", 0)
    limiter.cooldowns.set("platform:douyin", 60)
    limiter.release("a")
    limiter.durations.tally()
    limiter.waiting_room.sweep()
    text = metrics.expose(limiter).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def test_each_metric_of_the_board_is_there(exposed: dict[str, Any]) -> None:
    samples = {sample.name for family in exposed.values() for sample in family.samples}
    named = {name for text in texts(BOARD) for name in re.findall(NAME, text)}
    assert named <= samples
    assert {"celery_concurrency_wait_seconds_bucket", "celery_concurrency_lost_total"} <= named


def test_the_board_shows_all_metrics(exposed: dict[str, Any]) -> None:
    board = " ".join(texts(BOARD))
    assert not [name for name in exposed if name not in board]


def test_its_labels_are_those_of_the_metrics(exposed: dict[str, Any]) -> None:
    used = {
        label
        for text in texts(BOARD)
        if "celery_concurrency_" in text
        for label in re.findall(r'(\w+)=~?"', text)
    }
    assert used == {"limit"}


def test_the_board_is_whole() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = any(
            a[axis] + a[size] <= b[axis]
            for a, b in ((one, other), (other, one))
            for axis, size in (("x", "w"), ("y", "h"))
        )
        assert apart, "two panels in one place"
    assert {one["name"] for one in BOARD["templating"]["list"]} == {"datasource", "limit"}


def test_the_documentation_lists_exactly_what_is_there(exposed: dict[str, Any]) -> None:
    kinds = {
        name.removesuffix("_total"): kind
        for name, kind in re.findall(rf"^\| `({NAME})` \| (\w+) \|", TEXT, re.MULTILINE)
    }
    assert kinds == {name: family.type for name, family in exposed.items()}
