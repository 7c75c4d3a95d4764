"""A fake platform, which refuses calls above a hidden rate and a hidden number at once.

It knows nothing of limits or tasks: what it allows and what was asked of it is in Redis, so that
all processes see the same one. ``project.py`` calls it, and so do the benchmarks and the tests.
"""

import json
import math
import time
from itertools import pairwise
from typing import Any, Final, NamedTuple

from redis import Redis

#: Seconds in which the calls of the hidden rate are counted.
WINDOW: Final = 1.0
#: How many records are read in one command, and changes of what is allowed that are kept.
BATCH: Final = 1000
KEPT: Final = 1000

# Keys: what is allowed, calls that run (until when), calls that began (when), records of all.
# Arguments: account, how long the call takes, the window.
_ASK: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local allowed = redis.call('HMGET', KEYS[1], 'rate', 'parallel')
local rate, parallel = tonumber(allowed[1] or 0), tonumber(allowed[2] or 0)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[3])
local refused = (parallel > 0 and redis.call('ZCARD', KEYS[2]) >= parallel)
  or (rate > 0 and redis.call('ZCARD', KEYS[3]) >= rate)
local at = string.format('%.6f', now)
redis.call('RPUSH', KEYS[4], cjson.encode({at, ARGV[1], not refused}))
if not refused then
  local call = redis.call('HINCRBY', KEYS[1], 'accepted', 1)
  redis.call('ZADD', KEYS[2], string.format('%.6f', now + ARGV[2]), call)
  redis.call('ZADD', KEYS[3], at, call)
end
return refused and 0 or 1
"""


class Refused(Exception):
    """The platform refuses a call.

    Attributes:
        retry_after: seconds for which the account should leave it alone.
    """

    def __init__(self, account: str, retry_after: float) -> None:
        super().__init__(account, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"risk control: {self.args[0]} is to wait for {self.retry_after:g} s"


class RiskControl(Refused):
    """The same, as the platform's own client raises it."""


class Strictness(NamedTuple):
    """What a platform allows from a moment on, in Unix seconds of the server; 0 is unlimited."""

    at: float
    rate: int  # calls that begin within WINDOW
    parallel: int  # calls at once

    def calls_per_second(self, seconds: float) -> float:
        """Return how many calls of so many seconds it allows; infinite where it bounds nothing."""
        by_rate = self.rate / WINDOW if self.rate else math.inf
        return min(by_rate, self.parallel / seconds if self.parallel else math.inf)


class Call(NamedTuple):
    """A call, when it was made, in Unix seconds of the server."""

    at: float
    account: str
    accepted: bool


class Platform:
    """A client of a fake platform.

    Args:
        redis: where it lives.
        name: of the platform.
        refusal: what it raises.
        retry_after: seconds, which its refusals name.
        refusal_seconds: how long it takes to refuse a call.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        *,
        refusal: type[Refused] = RiskControl,
        retry_after: float = 1.0,
        refusal_seconds: float = 0.1,
    ) -> None:
        self._redis = redis
        self._refusal = refusal
        self._retry_after = retry_after
        self._refusal_seconds = refusal_seconds
        start = f"platform:{name}"
        self._allowed, self._history = f"{start}:allowed", f"{start}:history"
        self._running, self._begun, self._calls = (
            f"{start}:{what}" for what in ("running", "begun", "calls")
        )
        self._ask = redis.register_script(_ASK)

    def allow(self, *, rate: int = 0, parallel: int = 0) -> None:
        """Allow so many calls within a second and at once from now on; 0 is unlimited."""
        seconds, micros = self._redis.time()
        record = json.dumps([seconds + micros / 1e6, rate, parallel])
        with self._redis.pipeline() as pipe:
            pipe.hset(self._allowed, mapping={"rate": rate, "parallel": parallel})
            pipe.rpush(self._history, record)
            pipe.ltrim(self._history, -KEPT, -1)
            pipe.execute()

    def call(self, account: str, seconds: float) -> None:
        """Do something in the name of an account, which takes some seconds.

        Raises:
            Refused: it is too often, or too much at once.
        """
        keys = [self._allowed, self._running, self._begun, self._calls]
        accepted = self._ask(keys=keys, args=[account, seconds, WINDOW])
        time.sleep(seconds if accepted else self._refusal_seconds)
        if not accepted:
            raise self._refusal(account, self._retry_after)

    def take_calls(self) -> list[Call]:
        """Return the calls made since the last time: their records are removed."""
        records: list[Any] = []
        while some := self._redis.lpop(self._calls, BATCH):
            assert isinstance(some, list)
            records += some
        return [
            Call(float(at), account, accepted) for at, account, accepted in map(json.loads, records)
        ]

    def history(self) -> list[Strictness]:
        """Return what was allowed until now, one after the other."""
        return [Strictness(*json.loads(one)) for one in self._redis.lrange(self._history, 0, -1)]


def capacity(history: list[Strictness], begin: float, end: float, seconds: float) -> float:
    """Return how many calls of so many seconds a platform allowed between two moments.

    Infinite where it bounded nothing for a while.

    Args:
        history: what it allowed.
        begin, end: in Unix seconds of the server.
        seconds: that each call takes.
    """
    total = 0.0
    for one, following in pairwise([*history, Strictness(end, 0, 0)]):
        span = min(end, following.at) - max(begin, one.at)
        if span > 0:
            total += span * one.calls_per_second(seconds)
    return total
