"""What blocks a waiter: every limit that has no room for it, what helps least first.

``limit_state.py`` reads the limits; listings name the first of these, ``explanation.py`` all.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from celery_concurrency.limiter.config.history import Pause
from celery_concurrency.limiter.config.schema import Rate
from celery_concurrency.limiter.inspect.adaptive import Limited
from celery_concurrency.limiter.limits import GLOBAL, split_limit
from celery_concurrency.limiter.outcomes import TRIED
from celery_concurrency.limiter.weights import places_in, read_group

Reason = Literal["full", "paused", "kept", "rate", "cooling", "probe", "behind", "next"]

#: A full limit in which no run has begun for so many seconds is named before others that are
#: full: its holders may be stuck.
STILL_SECONDS: Final = 60

#: What no run that ends clears comes first; scripts/acquire.lua has the same order.
_KIND: Final = {"paused": 0, "cooling": 1, "probe": 1}
#: The narrower a dimension, the fewer runs count in one of its limits; the user's own are 1.
_BREADTH: Final = {"account": 0, "task_type": 2, "platform": 3, GLOBAL: 4}


class LimitState(Limited):
    """A limit as it is now, with its rates and its cool-down, and how it adapts (``Limited``).

    Attributes:
        limit: its name.
        current: places that living tokens take, those by which room is kept included.
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
        return self.lacks(1)

    def lacks(self, places: int) -> bool:
        """Return whether it has fewer places left than these."""
        return 0 < self.allows < self.current + places


class Blocked(BaseModel):
    """Why a waiter does not go on now.

    Attributes:
        reason: what the limit is: ``paused``; ``cooling``, or ``probe``: one run goes first
            after a refusal, and that one runs; ``full``, or ``kept`` for a waiter that was
            passed over for long; ``rate``: it opens by itself. Or else ``behind``: all
            limits have room, and others with the same limits came before; ``next``: all
            have room, and it comes next.
        limit: that limit; None where all have room.
        current, max: places taken in it, and how many it has now.
        takes: how many the waiter takes there, if that is more than one.
        opens_at: when it opens by itself, in Unix seconds of the Redis server.
        text: that in words.
        rate: the rate that opens then; None where it is a cool-down.
        cause: why it cools down.
        by: who paused it, or said that it cools down; "" where nobody said.
        source: how it was paused, as in the configuration's history: ``cli``, ``api``.
        since: since when it is paused or cools down, or since when no run has begun in a full
            one, if that is a minute or more; in Unix seconds of the Redis server. ``takes``, and
            what begins with ``opens_at``, is left out of JSON where there is nothing to say.
    """

    reason: Reason
    limit: str | None = None
    current: int | None = None
    max: int | None = None
    takes: int = 0
    opens_at: float | None = None
    text: str = ""
    rate: Rate | None = None
    cause: str = ""
    by: str = ""
    source: str = ""
    since: float | None = None

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        always = {"reason", "limit", "current", "max"}
        return {name: value for name, value in data.items() if value or name in always}


class States:
    """The state of limits at about one moment.

    Attributes:
        by_limit: name to state.
        collected_for: the group that room is kept for; None if there is none.
        collected: limit to how many places are kept for it.
        enabled: whether limits are in force.
        now: that moment, in Unix seconds of the Redis server.
        begun: of full limits, when a run began there last, as far as that is known.
        pauses: of paused limits, who paused them and when, as far as that was read.
    """

    def __init__(
        self,
        by_limit: Mapping[str, LimitState],
        collected_for: str | None,
        collected: Mapping[str, int],
        now: float,
        begun: Mapping[str, float],
        *,
        enabled: bool,
    ) -> None:
        self.by_limit = by_limit
        self.collected_for = collected_for
        self.collected = collected
        self.enabled = enabled
        self.now = now
        self.begun = begun
        self.pauses: Mapping[str, Pause] = {}

    def blockers(self, group: str, limits: Iterable[str]) -> list[Blocked]:
        """Return every limit that blocks a waiter: those first that stay shut for longest.

        First the paused, then those that cool down or are tried after a refusal, then the full
        in which no run has begun for a minute, the longest first; then the narrowest: the
        account, dimensions of the user's own, task type and platform, and global last.

        Args:
            group: the group of its limits.
            limits: its limits.
        """
        weight = read_group(group)[1]
        found = {limit: (self.by_limit[limit], places_in(limit, weight)) for limit in limits}
        shut = [
            (one, places)
            for one, places in found.values()
            if self._is_shut(one, places) and not self._is_kept_for(group, one, places)
        ]
        shut.sort(key=lambda pair: self._order(*pair))
        return [self._blocked_by(*pair) for pair in shut]

    def blocked(self, group: str, limits: Sequence[str], position: int) -> Blocked:
        """Return why a waiter does not go on: the first of ``blockers``, or who comes before.

        Args:
            group, limits: as for ``blockers``.
            position: where it stands in the group, from 1.
        """
        blockers = self.blockers(group, limits)
        return blockers[0] if blockers else Blocked(reason="next" if position == 1 else "behind")

    def _is_shut(self, state: LimitState, places: int) -> bool:
        return state.full or (self.enabled and state.lacks(places))

    def _is_kept_for(self, group: str, state: LimitState, places: int) -> bool:
        return (
            group == self.collected_for
            and self.collected.get(state.limit, 0) >= places
            and self._reason(state, places) in ("kept", "full")
        )

    def _order(self, state: LimitState, places: int) -> tuple[int, float, int]:
        kind, since = _KIND.get(self._reason(state, places), 3), 0.0
        if kind == 3 and (still := self._still_since(state)):
            kind, since = 2, still
        return kind, since, _BREADTH.get(split_limit(state.limit)[0], 1)

    def _still_since(self, state: LimitState) -> float | None:
        """Return when a run began last in a full limit, if that is long ago."""
        begun = self.begun.get(state.limit)
        is_still = begun is not None and self.now - begun >= STILL_SECONDS
        return begun if is_still and state.has_no_place else None

    def _reason(self, state: LimitState, places: int) -> Reason:
        shut = state.shut(self.now)
        if state.paused:
            return "paused"
        if shut and not shut.rate:
            return "cooling"
        if state.tried_by:
            return "probe"
        if state.lacks(places):
            return "kept" if state.kept and state.current <= state.allows else "full"
        return "rate"

    def _blocked_by(self, state: LimitState, places: int) -> Blocked:
        blocked = Blocked(
            reason=self._reason(state, places), limit=state.limit, current=state.current,
            max=state.allows, takes=places if places > 1 else 0,
        )  # fmt: skip
        if blocked.reason == "paused" and (pause := self.pauses.get(state.limit)):
            blocked.by, blocked.source = pause.operator or "", pause.source
            blocked.since = pause.at
        elif blocked.reason in ("cooling", "rate"):
            self._say_moment(blocked, state)
        elif blocked.reason == "probe":
            blocked.text = f"{state.limit} {TRIED}"
        else:
            blocked.since = self._still_since(state)
        return blocked

    def _say_moment(self, blocked: Blocked, state: LimitState) -> None:
        shut = state.shut(self.now)
        assert shut is not None
        blocked.opens_at, blocked.text = shut.until, f"{state.limit} {shut}"
        blocked.rate = Rate(max=shut.rate[0], per=shut.rate[1]) if shut.rate else None
        blocked.cause = shut.reason
        if state.cooldown and not shut.rate:
            blocked.by, blocked.since = state.cooldown.by, state.cooldown.since
