"""The Lua scripts, one file a verb, and how they are called.

A call may be sent several times, as its reply may be lost on the way: each script says what
a second copy of it does. ``lib/`` holds what the verbs include, ``constants.py`` what they
share with Python. Every verb begins with ``PRELUDE``.
"""

import asyncio
import hashlib
import json
import re
import time
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError, NoScriptError, RedisError, TimeoutError

from celery_concurrency.errors import LimiterUnavailable, OutOfMemory
from celery_concurrency.scripts import constants
from celery_concurrency.scripts.remedies import CHECK, remedy_of

#: ``-- include tokens`` puts in ``lib/tokens.lua``, once a script. ``-- include handover when
#: hand_over is called`` wraps it in one function, which makes the library's thirty and calls
#: that one: made on every call, they would be 4 % of an acquire and release.
_INCLUDE: Final = re.compile(r"^-- include (\w+)(?: when (\w+) is called)?$", re.MULTILINE)
_CONSTANTS: Final = re.compile(r"^-- constants (.+)$", re.MULTILINE)

#: What every verb begins with.
PRELUDE: Final = ("lib/keys.lua", "lib/time.lua", "lib/memory.lua")

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
    """Return the whole text of a verb's script."""
    included: set[str] = set()
    parts = (*PRELUDE, f"{verb}.lua")
    return "\n".join(_text(file, included) for file in parts)


def _text(file: str, included: set[str]) -> str:
    """Return a file's text, with its constants and those libraries not included so far."""

    def library(line: re.Match[str]) -> str:
        name, function = line.groups()
        if function:
            body = _text(f"lib/{name}.lua", set())
            return f"local function {function}(...)\n{body}\nreturn {function}(...)\nend"
        if name in included:
            return ""
        included.add(name)
        return _text(f"lib/{name}.lua", included)

    text = (files(__name__) / file).read_text("utf-8")
    return _INCLUDE.sub(library, _CONSTANTS.sub(_locals, text))


def _locals(line: re.Match[str]) -> str:
    """Return constants as Lua: ``local RANK = 8796093022208``."""
    names = line[1].split(", ")
    return "\n".join(f"local {name} = {_lua(getattr(constants, name))}" for name in names)


def _lua(value: Any) -> str:
    if isinstance(value, tuple):
        return "{ " + ", ".join(map(_lua, value)) + " }"
    return json.dumps(value)


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
        OutOfMemory: Redis is out of memory; no copy of the call has done anything.
        LimiterUnavailable: Redis did not answer ``TRIES`` times, or can't do it
            now (it is loading, read-only). The call may have been executed all the
            same, or may be later.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return Answer(_evalsha(redis, verb, prefix, *args), attempt > 1)
        except RedisError as exc:
            time.sleep(_pause(verb, attempt, exc))
    raise AssertionError("the last attempt returns or raises")


async def call_async(redis: AsyncRedis, verb: str, prefix: str, *args: str | int | bytes) -> Answer:
    """Do what ``call`` does, in an event loop."""
    for attempt in range(1, TRIES + 1):
        try:
            return Answer(await _evalsha_async(redis, verb, prefix, *args), attempt > 1)
        except RedisError as exc:
            await asyncio.sleep(_pause(verb, attempt, exc))
    raise AssertionError("the last attempt returns or raises")


def _pause(verb: str, attempt: int, problem: RedisError) -> float:
    """Return the seconds until a call is sent again whose first, second... attempt failed.

    Raises:
        OutOfMemory, LimiterUnavailable: it is not, see ``call``.
    """
    if not isinstance(problem, ConnectionError | TimeoutError):
        # After a lost reply an earlier copy may do something all the same.
        if is_out_of_memory(problem) and attempt == 1:
            raise OutOfMemory() from problem
        remedy = remedy_of(problem)
        raise LimiterUnavailable(f"Redis refused {verb}: {problem}{remedy}") from problem
    if attempt == TRIES:
        raise LimiterUnavailable(
            f"Redis did not answer {TRIES} times ({problem}){remedy_of(problem) or CHECK}"
        ) from problem
    return PAUSE * attempt


def _evalsha(redis: Redis, verb: str, prefix: str, *args: str | int | bytes) -> Any:
    try:
        return redis.evalsha(_sha(verb), 1, prefix, *args)
    except NoScriptError:
        # A server that was restarted, or SCRIPT FLUSH: send the text once.
        return redis.eval(source(verb), 1, prefix, *args)


async def _evalsha_async(
    redis: AsyncRedis, verb: str, prefix: str, *args: str | int | bytes
) -> Any:
    # redis-py types these replies as those of the client that blocks.
    client: Any = redis
    try:
        return await client.evalsha(_sha(verb), 1, prefix, *args)
    except NoScriptError:
        return await client.eval(source(verb), 1, prefix, *args)


def is_out_of_memory(error: RedisError) -> bool:
    """Return whether Redis refused a command or script because it is at its ``maxmemory``."""
    # Redis 6.2 wraps the error of a script's command, which then has no class of its own.
    return "command not allowed when used memory > 'maxmemory'" in str(error)
