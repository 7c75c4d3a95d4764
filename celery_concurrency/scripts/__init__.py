"""The Lua scripts, one file a verb, and how they are called.

A call may be sent several times (its reply may be lost on the way), which is
why every script says what a second copy of it does. Nothing else lives here: what
a verb is for, those say who call it. ``common.lua``, ``held.lua``, ``orphans.lua``,
``index.lua`` and ``handover.lua`` are no verbs, but what several of them include.
"""

from __future__ import annotations

import hashlib
import re
import time
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.exceptions import ConnectionError, NoScriptError, RedisError, TimeoutError

from celery_concurrency.errors import LimiterUnavailable

#: In a script, the line that another one's text takes the place of.
_INCLUDE: Final = re.compile(r"^ *-- include ([a-z]+)$", re.MULTILINE)

TRIES: Final = 3
PAUSE: Final = 0.05  # seconds before a second try; the third waits twice that


class Answer(NamedTuple):
    """What a script answered.

    Attributes:
        reply: as Redis gave it: bytes, integers, lists of them.
        lost: a reply to an earlier copy of this call never came, so that copy
            may still be executed at any later time.
    """

    reply: Any
    lost: bool


@cache
def source(verb: str) -> str:
    """Return the whole text of a verb's script, with what it includes."""
    text = (files(__name__) / f"{verb}.lua").read_text("utf-8")
    return _INCLUDE.sub(lambda include: source(include[1]), text)


@cache
def _sha(verb: str) -> str:
    # How Redis itself names a script: nothing secret about it.
    return hashlib.sha1(source(verb).encode(), usedforsecurity=False).hexdigest()


def call(redis: Redis, verb: str, prefix: str, *args: str | int | bytes) -> Answer:
    """Call a script, again where its reply does not come.

    Args:
        redis: a client that does not repeat commands itself (``connection.connect``).
        verb: the script's name.
        prefix: that of all keys.
        args: the script's ARGV.

    Raises:
        LimiterUnavailable: Redis did not answer ``TRIES`` times, or can't do it
            now (it is loading, out of memory, read-only). The call may have been
            executed all the same, or may be later.
    """
    lost = False
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * attempt)
        try:
            return Answer(_evalsha(redis, verb, prefix, *args), lost)
        except (ConnectionError, TimeoutError) as exc:
            lost, problem = True, exc
        except RedisError as exc:
            raise LimiterUnavailable(f"Redis refused {verb}: {exc}") from exc
    raise LimiterUnavailable(
        f"Redis did not answer {TRIES} times ({problem}); check that it runs "
        "and that concurrency_redis_url is right"
    ) from problem


def _evalsha(redis: Redis, verb: str, prefix: str, *args: str | int | bytes) -> Any:
    try:
        return redis.evalsha(_sha(verb), 1, prefix, *args)
    except NoScriptError:
        # A server that was restarted, or SCRIPT FLUSH: send the text once.
        return redis.eval(source(verb), 1, prefix, *args)
