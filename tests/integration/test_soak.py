"""Promises 1, 3 and 4 for some seconds under a load in which processes are killed at random."""

from __future__ import annotations

from tests.support.soak import soaking


def test_a_short_soak(server, tmp_path):
    with soaking(server, tmp_path, seed=1, db=7) as soak:
        figures = soak.run(12)
        print(figures)
        assert figures.is_well, (str(figures), soak.overlapping(), soak.missing())
        assert figures.killed_children
