"""What the brake spares: refusals of a platform that gets strict, and what it lets through.

The platform (``celery_concurrency/demo/platform.py``) refuses above a hidden rate and a hidden
number at once, both of which change twice. Another one beside it refuses nothing. Then a twin of
the first has the same load, and a limit that stays at the ceiling; and the other one is alone.
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
HIDDEN = ((20, 8), (20, 4), (11, 8))
CEILING = 16
SECONDS = 0.5  # of a call
OTHER_PLACES = 4
AHEAD = 24
LIMITS = {
    "global_max": 0,
    "account_max": 1,
    "platform_max": {"strict-fixed": CEILING, "other": OTHER_PLACES},
    "adaptive": {"platform:strict": {"min": 1, "max": CEILING, "decrease": 0.8, "every": 1}},
}
#: Seconds for which each of that holds, and of the other platform alone.
PHASE, PHASE_SHORT = 20.0, 4.0
#: No run waits for a process.
PROCESSES = CEILING + OTHER_PLACES + 4


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Return refusals with the brake over without it, and what it and others get through."""
    phase = PHASE_SHORT if short else PHASE
    with tempfile.TemporaryDirectory() as name, site(server, Path(name), "brake") as one:
        one.limiter.config.update(LIMITS)
        one.start(concurrency=PROCESSES)
        braked, beside = _strict(one, "strict", phase, "other")
        (fixed,) = _strict(one, "strict-fixed", phase)
        alone = _feed(one, "other")
        _run([alone], phase)
    for feed in (braked, fixed):
        say(f"{feed.name}: refused {len(feed.refused)}, {_share(feed):.2f} of what it allows")
    paces = beside.pace(OTHER_PLACES), alone.pace(OTHER_PLACES)
    say("the other: {:.2f} calls a second, and {:.2f} alone".format(*paces))
    return {
        "brake_refusals": round(len(braked.refused) / len(fixed.refused), 3),
        "brake_throughput": round(_share(braked), 3),
        "brake_other_platform": round(paces[0] / paces[1], 3),
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
    # All of it is done some time: nothing is lost.
    wait_for(lambda: all(feed.is_done() for feed in feeds), what="all calls accepted")
    return feeds


def _share(feed: Feed) -> float:
    """Return the calls that a strict platform accepted, over what it allowed meanwhile."""
    history = feed.platform.history()
    begin, end = feed.calls[0].at, history[-1].at
    return feed.work(begin, end) / capacity(history, begin, end, SECONDS)


def _feed(one: Site, name: str) -> Feed:
    platform = Platform(one.redis, name)
    ahead = 2 * OTHER_PLACES if name == "other" else AHEAD
    return Feed(one.tasks.call, platform, name, seconds=SECONDS, ahead=ahead)


def _run(feeds: list[Feed], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for feed in feeds:
            feed.fill()
        time.sleep(0.02)
