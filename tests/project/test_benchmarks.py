"""What CI goes by when it says that a figure got worse; the measuring itself is ``make bench``."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from statistics import fmean

import pytest
import simpy

from benchmarks import figures
from benchmarks.calls import shape
from benchmarks.fleet import Costs, Fleet, ScriptServer, Simulation, Verb
from benchmarks.rehearsal import off, ratios
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


def mean_wait(service, rate=0.7, calls=30_000):
    """Return how long calls wait that come at random to a server, in its mean service times."""
    random, env = Random(5), simpy.Environment()
    server, waits = ScriptServer(env), []

    def one(seconds):
        began = env.now
        yield server.call(seconds)
        waits.append(env.now - began - seconds)

    def arrivals():
        for _ in range(calls):
            yield env.timeout(random.expovariate(rate))
            env.process(one(service(random)))

    env.process(arrivals())
    env.run()
    assert len(waits) == calls
    return fmean(waits)


def test_calls_wait_as_queueing_theory_says():
    """M/M/1: rho / (mu - lambda). M/D/1: half of that (Pollaczek and Khinchine)."""
    of_any_length = mean_wait(lambda random: random.expovariate(1))
    of_one_length = mean_wait(lambda _: 1.0)
    assert of_any_length == pytest.approx(0.7 / 0.3, rel=0.07)
    assert of_one_length == pytest.approx(0.7 / 0.3 / 2, rel=0.07)
    # With all the work of the one, it has not the waits of the other.
    assert of_one_length != pytest.approx(0.7 / 0.3, rel=0.3)


def test_a_busy_server_does_one_call_after_the_other():
    """Clients that never rest: as many calls as the server can, and each waits for the others."""
    env = simpy.Environment()
    server, lengths = ScriptServer(env, trip=0.5), []

    def client():
        while True:
            began = env.now
            yield server.call(0.1)
            lengths.append(env.now - began)

    for _ in range(20):
        env.process(client())
    env.run(100)
    assert len(lengths) == pytest.approx(100 / 0.1, rel=0.02)
    assert lengths[-1] == pytest.approx(20 * 0.1)
    assert server.utilisation() == pytest.approx(1, rel=0.02)


#: Of each verb so many seconds, none of them small beside a task, so that each shows.
VERBS = ("acquire", "release", "deny", "park", "join", "hand over", "take over", "message")
COSTS = Costs(
    dict.fromkeys(VERBS, Verb(0.001)) | {"tick": Verb(0.002, 4), "beat": Verb(0.001)}
    | {"token": Verb(0.0001, 0), "sweep": Verb(0.001)},
    trip=0.001,
)  # fmt: skip


def test_a_fleet_does_what_it_is_given():
    fleet = Fleet(workers=10, processes=8, task_seconds=1.0, load=0.6, accounts=3)
    found = Simulation(fleet, COSTS).run(300)
    assert found.tasks_per_second == pytest.approx(fleet.rate, rel=0.05)
    # An account is a queue of its own: M/M/1, busy for that share of the time.
    assert found.waited == pytest.approx(0.6 / 3, rel=0.1)
    # More by the calls of workers that still take an account for busy.
    assert 1 < found.utilisation / fleet.demand(COSTS) < 1.15
    assert found.quantile(0.5) == pytest.approx(0.002, rel=0.2)
    assert 2 * 0.002 < found.added_seconds < 4 * 0.002


def test_a_fleet_that_needs_more_than_a_server_gets_no_more():
    fleet = Fleet(workers=60, processes=8, task_seconds=1.0)
    assert fleet.demand(COSTS) > 1
    found = Simulation(fleet, COSTS).run(30)
    assert found.utilisation == pytest.approx(1, rel=0.01)
    assert found.tasks_per_second < 0.95 * fleet.rate
    assert found.quantile(0.5) > 0.05


def test_the_same_seed_gives_the_same_numbers():
    fleet = Fleet(workers=2, task_seconds=0.5)
    one, same, other = (Simulation(fleet, COSTS, seed).run(5) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_simulation_by_wrong_times_is_seen():
    fleet = Fleet(workers=4, task_seconds=0.5)
    right = Simulation(fleet, COSTS).run(30)
    twice = replace(COSTS, verbs={
        name: verb._replace(seconds=2 * verb.seconds) for name, verb in COSTS.verbs.items()
    })  # fmt: skip
    assert off(ratios(right, Simulation(fleet, COSTS, seed=2).run(30))) < 1.15
    assert off(ratios(right, Simulation(fleet, twice).run(30))) > 1.8
    assert off({"more": 1.1, "less": 0.5}) == 2


def test_the_spread_of_calls_keeps_their_mean():
    values = shape([1.0] * 90 + [11.0] * 10)
    assert fmean(values) == pytest.approx(1)
    assert max(values) / min(values) == pytest.approx(11)
