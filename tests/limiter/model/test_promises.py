"""Promises 1, 2, 6, 9, 11, 12 and 14 to 19 by a model, and steps that hypothesis chooses.

1. No limit is ever exceeded by living tokens; a run gets all its limits or none.
2. A script that arrives again, or late, changes nothing.
6. Times are the server's; a lowered limit never touches what runs.
9. No lost wake-up: nobody waits whose limits all have room.
11. Those with the same limits go on in the order in which they asked; of the
    others the one that waits the longest.
12. A full limit holds up nobody who doesn't need it.
14. What takes many steps is done in bounded calls.
15. No window of a rate has more starts than it allows.
16. Who did not begin is charged no start.
17. Who waits for a moment goes on when somebody meets it.
18. A cool-down admits nobody; after one that a refusal began, one goes first.
19. An adaptive limit stays between its bounds, falls once in ``every`` seconds, rises by one.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from celery_concurrency import scripts
from tests.limiter.model.machine import Machine

#: Steps of one example, and in all; CI sets more, ``make promises`` a million.
LENGTH = 100
STEPS = int(os.environ.get("PROMISES_STEPS", "20000"))


class InSmallSteps(Machine):
    """Hand-overs that take many calls."""

    steps = 2


class Collecting(Machine):
    """Room is kept for those who are passed over."""

    patience = -1.0


#: Each has as many steps; conftest.py lets them run beside each other.
MACHINES = (Machine, Machine, Machine, InSmallSteps, Collecting)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "PAUSE", 0)


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("machine", MACHINES)
def test_the_promises_hold_whatever_happens(redis_url: str, machine: type[Machine]) -> None:
    """The machine, on a real server."""
    machine.url = redis_url
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, STEPS // len(MACHINES) // LENGTH),
            stateful_step_count=LENGTH,
            deadline=None,
            # Making a long failure shorter would take CI minutes; its seed is printed.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
