"""What CI goes by when it says that a figure got worse; the measuring itself is ``make bench``."""

from __future__ import annotations

import json

import pytest

from benchmarks import figures
from benchmarks.steps import SLOW, quantile


@pytest.fixture(autouse=True)
def recorded(monkeypatch, tmp_path):
    file = tmp_path / "recorded.json"
    file.write_text(json.dumps({"short": {"pair_vs_floor": 1.2, "throughput_vs_plain": 0.9}}))
    monkeypatch.setattr(figures, "RECORDED", file)


@pytest.mark.parametrize(
    ("found", "worse"),
    [
        ({"pair_vs_floor": 1.79, "throughput_vs_plain": 0.61}, []),
        ({"pair_vs_floor": 1.81, "throughput_vs_plain": 2.0}, ["pair_vs_floor"]),
        ({"pair_vs_floor": 0.1, "throughput_vs_plain": 0.59}, ["throughput_vs_plain"]),
        ({"waiter_bytes": 10_000}, []),
    ],
)
def test_worse_is_by_more_than_half_of_what_was_recorded(found, worse):
    assert list(figures.worse(found, "short")) == worse
    assert figures.worse(found, "full") == {}


def test_recording_a_part_keeps_the_others():
    figures.record({"pair_vs_floor": 1.0}, "short")
    assert figures.worse({"pair_vs_floor": 1.6}, "short") == {"pair_vs_floor": (1.6, 1.0)}
    assert figures.worse({"throughput_vs_plain": 0.5}, "short")


def test_a_quantile_of_calls_of_which_only_the_slow_ones_are_known():
    assert quantile([900, 700, 800], 10, 1.0) == 900
    assert quantile([900, 700, 800], 10, 0.9) == 800
    assert quantile([900, 700, 800], 10, 0.5) == SLOW
    assert quantile([900], 31_253, 0.9999) == SLOW


def test_recorded_figures_are_known():
    recorded = json.loads((figures.Path(figures.__file__).parent / "recorded.json").read_text())
    keys = {figure.key for figure in figures.FIGURES}
    assert {kind: set(found) for kind, found in recorded.items()} == {"short": keys, "full": keys}
