"""The state of limits, and which of them blocks a waiter.

Shown in listings (``waiting.py``, ``explanation.py``); the scripts decide by themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from celery_concurrency.limiter.config.schema import Config, Rate
from celery_concurrency.limiter.inspect.adaptive import Limited, read_adaptive
from celery_concurrency.limiter.inspect.counts import count_living
from celery_concurrency.limiter.inspect.moments import read_moments
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.outcomes import TRIED

Reason = Literal["full", "paused", "kept", "rate", "cooling", "probe", "behind", "next"]


class LimitState(Limited):
    """A limit as it is now, with its rates and its cool-down, and how it adapts (``Limited``).

    Attributes:
        limit: its name.
        current: living tokens, those by which room is kept included.
        max: how many the configuration allows, 0 for unlimited.
        paused: it admits nobody for now.
        full: it admits nobody now, for whatever reason.
        kept: some of its room is kept for a waiter that was passed over for long.
    """

    limit: str
    full: bool
    kept: bool

    @property
    def has_no_place(self) -> bool:
        """Whether as many run as it allows."""
        return 0 < self.allows <= self.current

    @property
    def opens_by_itself(self) -> bool:
        """Whether it is shut by a rate, a cool-down, or for the run that goes first."""
        return self.full and not self.paused and not self.has_no_place


class Blocked(BaseModel):
    """Why a waiter does not go on now.

    Attributes:
        reason: ``full``, ``paused``, or ``kept`` (for a waiter that was passed over for
            long) say what the limit is; ``rate`` or ``cooling``: it opens by itself;
            ``probe``: one run goes first after a refusal, and that one runs;
            ``behind``: all limits have room, and others with the same limits came before;
            ``next``: all have room, and it comes next.
        limit: the first of its limits without room for it; None where all have room.
        current, max: living tokens in that limit, and how many it allows now.
        opens_at: when a limit opens by itself, in Unix seconds of the Redis server.
        text: that in words.
        rate: the rate that opens then; None where it is a cool-down.
        cause: why it cools down. What begins with ``opens_at`` is left out of JSON where no
            moment is waited for, or where it has its default value.
    """

    reason: Reason
    limit: str | None = None
    current: int | None = None
    max: int | None = None
    opens_at: float | None = None
    text: str = ""
    rate: Rate | None = None
    cause: str = ""

    @model_serializer(mode="wrap")
    def _without_moment(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        empty = {name for name in ("opens_at", "text", "rate", "cause") if not data[name]}
        return {name: value for name, value in data.items() if name not in empty}


class States:
    """The state of limits at about one moment.

    Attributes:
        by_limit: name to state.
        collected_for: the group that room is kept for; None if there is none.
        now: that moment, in Unix seconds of the Redis server.
    """

    def __init__(
        self, by_limit: Mapping[str, LimitState], collected_for: str | None, now: float
    ) -> None:
        self.by_limit = by_limit
        self.collected_for = collected_for
        self.now = now

    def blocked(self, group: str, limits: Sequence[str], position: int) -> Blocked:
        """Return why a waiter does not go on.

        Args:
            group: the group of its limits.
            limits: its limits.
            position: where it stands in the group, from 1.
        """
        for limit in limits:
            state = self.by_limit[limit]
            if state.full and not (state.kept and group == self.collected_for):
                return self._blocked_by(state)
        return Blocked(reason="next" if position == 1 else "behind")

    def _blocked_by(self, state: LimitState) -> Blocked:
        blocked = Blocked(
            reason="full", limit=state.limit, current=state.current, max=state.allows
        )  # fmt: skip
        shut = state.shut(self.now)
        if state.paused:
            blocked.reason = "paused"
        elif shut and state.opens_by_itself:
            blocked.reason = "rate" if shut.rate else "cooling"
            blocked.opens_at, blocked.text = shut.until, f"{state.limit} {shut}"
            blocked.rate = Rate(max=shut.rate[0], per=shut.rate[1]) if shut.rate else None
            blocked.cause = shut.reason
        elif state.tried_by and state.opens_by_itself:
            blocked.reason = "probe"
            blocked.text = f"{state.limit} {TRIED}"
        elif state.kept and state.current == state.allows:
            blocked.reason = "kept"
        return blocked


def read_states(keyspace: Keyspace, config: Config, limits: Iterable[str]) -> States:
    """Return the state of these limits.

    Args:
        config: the configuration in force.
        limits: their names.
    """
    counts = count_living(keyspace, dict.fromkeys(limits))
    moments = read_moments(keyspace, config, counts)
    adaptive = read_adaptive(keyspace, config, counts)
    collecting: Any = keyspace.redis.hmget(keyspace.keys.collecting, "group", "token")
    group, token = collecting
    scores = keyspace.for_each(
        counts if token else (),
        lambda pipe, limit: pipe.zscore(keyspace.keys.semaphore(limit), token),
    )
    collected = {limit for limit, score in scores if score}

    def state(limit: str, current: int) -> LimitState:
        own = moments.of(limit)
        found = LimitState(
            limit=limit, current=current, max=config.max_of(limit),
            paused=limit in config.paused, full=False, kept=limit in collected,
            rates=own.rates, cooldown=own.cooldown, adaptive=adaptive.get(limit),
        )  # fmt: skip
        shut = found.paused or found.has_no_place or own.shut(moments.now) is not None
        shut = shut or own.tried_by is not None
        found.full = config.enabled and shut
        return found

    return States(
        {limit: state(limit, current) for limit, current in counts.items()},
        group.decode() if group else None,
        moments.now,
    )
