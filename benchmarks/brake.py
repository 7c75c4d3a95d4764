"""What the brake spares: refusals of a platform that gets strict, and what it lets through.

The platform (``celery_concurrency/demo/platform.py``) refuses above a hidden rate and a hidden
number at once, both of which change twice. Another one beside it refuses nothing, and is alone
before and after that. Then a twin of the first has the same load, and a limit that stays.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from celery_concurrency.demo.platform import Platform, capacity
from celery_concurrency.testing.server import Server
from tests.support.feeding import Feed
from tests.support.sites import Site, site
from tests.support.workers import wait_for

#: What the platform allows, one after the other: calls within a second, and at once.
HIDDEN = ((10, 8), (10, 4), (6, 8))
CEILING = 16
SECONDS = 1.0  # of a call
OTHER_PLACES = 4
AHEAD = 32
LIMITS = {
    "global_max": 0,
    "account_max": 1,
    "platform_max": {"strict-fixed": CEILING, "other": OTHER_PLACES},
    "adaptive": {"platform:strict": {"min": 1, "max": CEILING, "decrease": 0.8, "every": 1}},
}
#: Seconds for which each of that holds, and for which the other platform is alone in all.
PHASE, PHASE_SHORT = 20.0, 4.0
#: No run waits for a process.
PROCESSES = CEILING + OTHER_PLACES + 4


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Return refusals with the brake over without it, and what it and others get through."""
    phase = PHASE_SHORT if short else PHASE
    with tempfile.TemporaryDirectory() as name, site(server, Path(name), "brake") as one:
        one.limiter.config.update(LIMITS)
        one.start(concurrency=PROCESSES)
        before = _alone(one, phase / 2)
        braked, beside = _strict(one, "strict", phase, "other")
        after = _alone(one, phase / 2)
        (fixed,) = _strict(one, "strict-fixed", phase)
    for feed in (braked, fixed):
        say(f"{feed.name}: refused {len(feed.refused)}, {_share(feed):.2f} of what it allows")
    pace, alone = beside.pace(OTHER_PLACES), (before + after) / 2
    say(f"the other: {pace:.2f} calls a second; alone {before:.2f} before and {after:.2f} after")
    return {
        "brake_refusals": round(len(braked.refused) / len(fixed.refused), 3),
        "brake_throughput": round(_share(braked), 3),
        "brake_other_platform": round(pace / alone, 3),
        "brake_refused": [len(braked.refused), len(fixed.refused)],
        "brake_throughput_of_fixed": round(_share(fixed), 3),
    }


def _strict(one: Site, name: str, phase: float, *others: str) -> list[Feed]:
    """Feed a platform that gets strict, and others beside it; return the feeds."""
    feeds = [_feed(one, each) for each in (name, *others)]
    platform = feeds[0].platform
    for rate, parallel in HIDDEN:
        platform.allow(rate=rate, parallel=parallel)
        _run(feeds, phase)
    platform.allow()
    _finish(feeds)
    return feeds


def _alone(one: Site, seconds: float) -> float:
    """Return how many calls a second the other platform takes with nothing beside it."""
    feed = _feed(one, "other")
    _run([feed], seconds)
    _finish([feed])
    return feed.pace(OTHER_PLACES)


def _finish(feeds: list[Feed]) -> None:
    """Wait for all that was sent: nothing is lost."""
    wait_for(lambda: all(feed.is_done() for feed in feeds), what="all calls accepted")


def _share(feed: Feed) -> float:
    """Return for how long accepted calls were under way, over what a strict platform allowed."""
    history = feed.platform.history()
    begin, end = feed.calls[0].at, history[-1].at
    return feed.work(begin, end) / capacity(history, begin, end, SECONDS)


def _feed(one: Site, name: str) -> Feed:
    platform = Platform(one.redis, name)
    ahead = OTHER_PLACES + 2 if name == "other" else AHEAD
    return Feed(one.tasks.call, platform, name, seconds=SECONDS, ahead=ahead)


def _run(feeds: list[Feed], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for feed in feeds:
            feed.fill()
        time.sleep(0.02)
