"""A platform that turns strict, with real workers: the limit falls, others notice nothing, it
comes back.

``make bench`` measures the same at length (``benchmarks/brake.py``). Its
bounds are a fifth of the refusals, 0.85 of the throughput, 0.95 of the other's; these are weaker.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from celery_concurrency.demo.platform import Platform
from tests.support.feeding import Feed
from tests.support.sites import site
from tests.support.workers import wait_for

CEILING = 6
OTHER_PLACES = 3
SECONDS = 0.3  # of a call
LIMITS = {
    "account_max": 1,
    "platform_max": {"strict-fixed": CEILING, "other": OTHER_PLACES},
    "adaptive": {"platform:strict": {"min": 1, "max": CEILING, "decrease": 0.5, "every": 1}},
}


@pytest.fixture
def room(server, tmp_path):
    with site(server, tmp_path, "brake") as one:
        one.limiter.config.update(LIMITS)
        one.start(concurrency=2 * CEILING + OTHER_PLACES + 3)
        yield one


def run(feeds, until, timeout=60):
    """Feed the platforms until a condition holds."""

    def fed():
        for feed in feeds:
            feed.fill()
        return until()

    wait_for(fed, timeout=timeout)


def test_a_strict_platform_is_spared_others_notice_nothing_and_the_limit_comes_back(room):
    platforms = {name: Platform(room.redis, name) for name in ("strict", "strict-fixed", "other")}
    braked, fixed, other = feeds = [
        Feed(room.tasks.call, platform, name, seconds=SECONDS, ahead=3 * CEILING)
        for name, platform in platforms.items()
    ]

    def in_force():
        return room.limiter.adaptive.find("platform:strict").in_force

    run([other], lambda: len(other.accepted) > 8 * OTHER_PLACES)
    alone = other.pace(OTHER_PLACES)
    other.calls, other.sent = [], other.sent - len(other.accepted)
    assert in_force() == CEILING

    for name in ("strict", "strict-fixed"):
        platforms[name].allow(rate=8, parallel=2)
    # However slow the machine is: by then all of them have long been under way.
    run(feeds, lambda: len(fixed.refused) >= 50 and len(other.accepted) > 8 * OTHER_PLACES)
    assert in_force() < CEILING
    assert 0 < len(braked.refused) < len(fixed.refused) / 2
    # The platform is still made use of.
    assert len(braked.accepted) > len(fixed.accepted) / 2
    assert other.pace(OTHER_PLACES) > 0.6 * alone
    assert other.refused == []

    for name in ("strict", "strict-fixed"):
        platforms[name].allow()
    run(feeds, lambda: in_force() == CEILING)
    moves = room.limiter.adaptive.moves("platform:strict")
    assert [move.after - move.before for move in moves][-2:] == [1, 1]
    assert all(1 <= move.after <= CEILING for move in moves)
    falls = [move.at for move in moves if move.after < move.before]
    # Moves are noted in whole milliseconds.
    assert all(later - fall >= 0.99 for fall, later in pairwise(falls))

    # Nothing is lost: what was refused has run again.
    def done():
        for feed in feeds:
            feed.read()
        return all(len(feed.accepted) == feed.sent for feed in feeds)

    wait_for(done, what="all calls accepted")
    room.wait_until_free()
