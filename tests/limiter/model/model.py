"""What must hold of the limiter, as plain Python: the model that its scripts are held against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from celery_concurrency.limiter.config.flat import flat_of
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.scripts.constants import PAUSED, RANK

Limits = tuple[str, ...]
#: A run's limits, and behind them its weight if that is more than 1.
Group = tuple[str | int, ...]
#: The limit that denied, how many held it, how many it allowed.
Full = tuple[str, int, int]

#: The shared limits of some who wait, their rank, and their name in the fair dimension.
Flow = tuple[Group, int, str]

#: The narrower a limit, the earlier it is named; the user's own dimensions are 1.
BREADTH = {"account": 0, "task_type": 2, "platform": 3, "global": 4}


def names(group: Group) -> Limits:
    """Return the limits of a group."""
    return tuple(one for one in group if isinstance(one, str))


def places(limit: str, group: Group) -> int:
    """Return how many places a run of a group takes in one of its limits."""
    is_shared = limit.startswith(("global", "platform:", "task_type:"))
    return int(group[-1]) if is_shared and not isinstance(group[-1], str) else 1


@dataclass(frozen=True)
class Waiting:
    """One who waits: the token of its denied run, its limits and weight, and its place.

    Attributes:
        parked_as: the run that first parked its message, "" if this one does.
        received: when its message was received, if it may be replaced; else None.
        asked: when it first asked itself, in Unix seconds.
    """

    run: str
    limits: Group
    score: int
    parked_as: str = ""
    received: int | None = None
    asked: float = 0.0

    @property
    def place(self) -> dict[str, object]:
        """What its message says of its place when it leaves."""
        place = {"as": self.parked_as or self.run, "score": self.score, "limits": list(self.limits)}
        return place if self.received is None else {**place, "received": self.received}


@dataclass
class Model:
    """Who holds what, and who waits for it. Time is the server's.

    Attributes:
        config: in force.
        held: token to the group that its record names; runs and reservations.
        reserved: those of them that are reservations.
        lapsed: tokens whose time is over, and which are not yet swept.
        silent: those of them whose own time is not, but whose worker renewed nothing.
        kept: limit to how many places are kept in it for the one that is collected for.
        freed: (token, limit) that an operator's DEL took out of a semaphore.
        ended: runs that were given up or swept; late calls of theirs are refused.
        parked: runs whose message has found its place.
        rescued: runs whose process was killed before, and whose message was put back.
        queued: messages that workers may see in a queue before they receive them; copies are alike.
        is_behind: one that was handed over is in front of them.
        waiting: waiter to what is known of it.
        unlined: (waiter, limit) of which the scripts don't know yet that it is in the line.
        begun: the name of a parked message to the run that began on it last; None when
            that has ended.
        counters: as in the seed.
        named: limits that are counted by name.
        rooms: how many there is room for that the configuration does not name.
        records: the limits of those who ended, in that order, as long as nobody counted them.
        counted: by limit, how many of them were counted.
        closed: after a loss of data, until those who live have said so.
        unnoticed: limits that have room of which no script can know before a sweep.
        starts: limit to its tokens, and when their runs began or may begin at the latest.
        cooling: limit to when it opens.
        cooled: call that set or lifted a cool-down to its reply.
        opened: limits that opened at a moment that nobody has met yet.
        probes: limit that a refusal shut to the token that goes first in it, living or not; ""
            before one has gone. Gone when that succeeded.
        lasted: limit to how long its last cool-down after a refusal was.
        told: (run, limit) of the refusals that were told.
        own: adaptive limit to its own maximum, where that is not the highest.
        since: adaptive limit to when it moved or was refused last; ``fell`` to when it fell.
        entries: adaptive entry of the configuration to how many there were before it.
        moved_by: adaptive limit to the entry by which it moved, and its number.
        lags: of two names of the fair dimension, both of which wait for the same shared limits
            with room in their own, how many rounds one has gone on more often than the other.
        now: the server's time; starts and cool-downs age by what tests take off theirs.
    """

    config: Config = field(default_factory=Config)
    held: dict[str, Group] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)
    lapsed: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    kept: Counter[str] = field(default_factory=Counter)
    freed: set[tuple[str, str]] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    rescued: set[str] = field(default_factory=set)
    queued: Counter[bytes] = field(default_factory=Counter)
    is_behind: bool = False
    waiting: dict[str, Waiting] = field(default_factory=dict)
    unlined: set[tuple[str, str]] = field(default_factory=set)
    begun: dict[str, str | None] = field(default_factory=dict)
    parked_as: dict[str, str] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    named: set[str] = field(default_factory=set)
    rooms: int = 2
    records: list[Group] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    closed: bool = False
    unnoticed: set[str] = field(default_factory=set)
    starts: dict[str, dict[str, float]] = field(default_factory=dict)
    cooling: dict[str, float] = field(default_factory=dict)
    cooled: dict[str, bytes] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    probes: dict[str, str] = field(default_factory=dict)
    lasted: dict[str, float] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)
    own: dict[str, int] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    fell: dict[str, float] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)
    moved_by: dict[str, tuple[str, int]] = field(default_factory=dict)
    lags: dict[tuple[Flow, Flow], float] = field(default_factory=dict)
    now: float = 0.0

    def members(self, limit: str, living: bool = False) -> set[str]:
        """Return the tokens in a semaphore; the living ones only, if asked."""
        return {
            token
            for token, limits in self.held.items()
            if limit in limits
            and (token, limit) not in self.freed
            and not (living and token in self.lapsed - self.silent)
        }

    def most(self, limit: str) -> float:
        """Return how many a limit admits now."""
        if not self.config.enabled:
            return math.inf
        if limit in self.config.paused:
            return PAUSED
        return min(self.config.max_of(limit) or math.inf, self.adapted(limit))

    def count(self, limit: str) -> int:
        """Return how many places are taken: who expired until the sweep, and what is kept in it."""
        taken = sum(places(limit, self.held[token]) for token in self.members(limit))
        return taken + self.kept[limit]

    def has_room(self, group: Group) -> bool:
        """Return whether each limit has room; who is too heavy for one needs one place there."""
        return not self.closed and all(
            self.count(limit) + self._needed(limit, group) <= self.most(limit)
            and not self.is_shut(limit)
            and not self.probe_of(limit)
            for limit in names(group)
        )

    def _needed(self, limit: str, group: Group) -> int:
        return 1 if self._is_too_heavy(limit, group) else places(limit, group)

    def _is_too_heavy(self, limit: str, group: Group) -> bool:
        entry = self.config.adaptive_of(limit)
        highest: float = self.config.max_of(limit) or math.inf
        if entry and entry.mode != "observe":
            highest = min(highest, entry.max)
        is_paused = limit in self.config.paused or not self.config.enabled
        return places(limit, group) > max(highest, 1) and not is_paused

    def too_heavy(self, group: Group) -> str | None:
        """Return the limit that never has as many places as a run takes."""
        return next((one for one in names(group) if self._is_too_heavy(one, group)), None)

    # -- refusals

    def probe_of(self, limit: str) -> str | None:
        """Return the run or reservation that goes first now; None while none does."""
        probe = self.probes.get(limit)
        return probe if probe in self.held and self.config.enabled else None

    def go_first(self, token: str, limits: Group, instead: str | None = None) -> None:
        """A token goes first in those of its limits where somebody has to."""
        if self.config.enabled:
            for limit in self.probes.keys() & set(limits):
                if self.probe_of(limit) in (None, instead):
                    self.probes[limit] = token

    def refuse(
        self, run: str, limits: Limits, limit: str, seconds: float, grow: float, most: float
    ) -> float:
        """A platform refused a run; return until when the limit cools down, 0 where not."""
        is_first = all(run != other for other, _ in self.told)
        self.told.add((run, limit))
        if is_first:
            self.counters["refused:total"] += 1
            for one in limits:
                if one.startswith(("platform:", "task_type:")):
                    self.counters[f"refused:{self.counted_as(one)}"] += 1
                self.fall(one)
        if seconds and limit in self.probes:
            last = self.lasted[limit]
            grown = min(last * grow, max(most, last)) if self.probes[limit] == run else last
            seconds = max(seconds, grown)
        moment = self.now + seconds
        if seconds and moment > self.cooling.get(limit, 0):
            self.cooling[limit], self.lasted[limit] = moment, seconds
            self.probes[limit] = ""
        for one in limits:
            if self.probes.get(one) == run:
                self.probes[one] = ""
        return self.cooling[limit] if seconds else 0

    def end_probation(self, limit: str) -> None:
        """Nobody has to go first any more."""
        self.probes.pop(limit, None)
        self.lasted.pop(limit, None)

    # -- adaptive limits

    def adapted(self, limit: str) -> float:
        """Return an adaptive limit's own maximum where it is in force, else infinity."""
        entry = self.config.adaptive_of(limit)
        if not entry or entry.mode == "observe":
            return math.inf
        return self.own_max(limit)

    def configure(self, config: Config) -> None:
        """It is in force; entries that it did not have begin anew."""
        for name in config.adaptive:
            if name not in self.config.adaptive:
                self.entries[name] = self.entries.get(name, 0) + 1
        if config.shares() != self.config.shares():
            self.lags = {}
        self.config = config

    def entry_of(self, limit: str) -> tuple[str, int]:
        """Return which entry an adaptive limit moves by."""
        name = limit if limit in self.config.adaptive else f"{limit.partition(':')[0]}:*"
        return name, self.entries[name]

    def own_max(self, limit: str) -> int:
        """Return an adaptive limit's own maximum."""
        entry = self.config.adaptive_of(limit)
        assert entry
        if self.moved_by.get(limit) != self.entry_of(limit):
            return entry.max
        return max(entry.min, min(entry.max, self.own.get(limit, entry.max)))

    def moved_at(self, limit: str, when: dict[str, float]) -> float:
        """Return when it moved, or fell, by the entry that it has now; 0 if it did not."""
        is_same = self.moved_by.get(limit) == self.entry_of(limit)
        return when.get(limit, 0) if is_same else 0

    def in_force(self, limit: str) -> float:
        """Return its own maximum, or the configured one if that is lower."""
        return min(self.own_max(limit), self.config.max_of(limit) or math.inf)

    def move(self, limit: str, most: int) -> None:
        """An adaptive limit has moved there."""
        entry = self.config.adaptive_of(limit)
        assert entry
        if self.moved_by.get(limit) != self.entry_of(limit):
            self.fell.pop(limit, None)
        self.moved_by[limit] = self.entry_of(limit)
        self.own[limit] = most
        if most == entry.max:
            del self.own[limit]
        self.since[limit] = self.now

    def fall(self, limit: str) -> None:
        """A refusal lowers it, once in ``every`` seconds."""
        entry = self.config.adaptive_of(limit)
        if entry and self.now - self.moved_at(limit, self.fell) >= entry.every:
            before = self.own_max(limit)
            if limit not in self.config.paused:
                before = max(entry.min, int(self.in_force(limit)))
            self.move(limit, max(entry.min, math.floor(before * entry.decrease + 1e-9)))
            self.fell[limit] = self.now
        elif entry:
            self.move(limit, self.own_max(limit))

    def may_rise(self, limit: str) -> bool:
        """Return whether it rises where it is found used in full."""
        entry = self.config.adaptive_of(limit)
        return (
            entry is not None
            and limit not in self.config.paused
            and self.own_max(limit) < entry.max
            and self.now - self.moved_at(limit, self.since) >= entry.every
        )

    def would_rise(self, limit: str, group: Group) -> bool:
        """Return whether it rises if a run asks: it has too few places left."""
        if not self.may_rise(limit):
            return False
        entry = self.config.adaptive_of(limit)
        over = self.count(limit) - self.in_force(limit)
        is_observed = entry is not None and entry.mode == "observe"
        return over + places(limit, group) > 0 and (over <= 0 or is_observed)

    # -- time

    def is_shut(self, limit: str, own: str | None = None) -> bool:
        """Return whether a rate or a cool-down lets nobody begin now; this start does not count."""
        if not self.config.enabled:
            return False
        starts = [at for token, at in self.starts.get(limit, {}).items() if token != own]
        return self.cooling.get(limit, 0) > self.now or any(
            sum(start > self.now - rate.per for start in starts) >= rate.max
            for rate in self.config.rates_of(limit)
        )

    def _rate_opens(self, limit: str) -> float:
        """Return the latest moment at which a window of its rates opens; 0 without any."""
        starts = sorted(self.starts.get(limit, {}).values(), reverse=True)
        full = (rate for rate in self.config.rates_of(limit) if len(starts) >= rate.max)
        return max((starts[rate.max - 1] + rate.per for rate in full), default=0)

    def shut_limits(self) -> set[str]:
        """Return all limits that are shut now."""
        return {limit for limit in {*self.starts, *self.cooling} if self.is_shut(limit)}

    def start(self, token: str, group: Group, moment: float) -> None:
        """A run begins, or may begin on this reservation at that moment at the latest."""
        for limit in names(group):
            rates = self.config.rates_of(limit)
            if rates:
                starts = {**self.starts.get(limit, {}), token: moment}
                latest = sorted(starts, key=lambda one: (starts[one], one))
                kept = latest[-max(rate.max for rate in rates) :]
                self.starts[limit] = {one: starts[one] for one in kept}

    def take_start_back(self, token: str, group: Group) -> None:
        """No run began on this token."""
        for limit in names(group):
            self.starts.get(limit, {}).pop(token, None)

    def is_rated(self, limit: str) -> bool:
        """Return whether limits of this dimension have rates that are in force."""
        dimension = limit.partition(":")[0]
        return any(
            one.partition(":")[0] == dimension and any(rate.mode == "enforce" for rate in rates)
            for one, rates in self.config.rates.items()
        )

    def age(self, seconds: float) -> None:
        """Time goes on for starts and cool-downs."""
        before = self.shut_limits()
        self.starts = {
            limit: {token: moment - seconds for token, moment in starts.items()}
            for limit, starts in self.starts.items()
        }
        self.cooling = {limit: until - seconds for limit, until in self.cooling.items()}
        self.since = {limit: moment - seconds for limit, moment in self.since.items()}
        self.fell = {limit: moment - seconds for limit, moment in self.fell.items()}
        self.opened |= before - self.shut_limits()

    def cool(self, limit: str, seconds: float) -> float:
        """The longer of two stands; return until when."""
        self.cooling[limit] = max(self.now + seconds, self.cooling.get(limit, 0))
        return self.cooling[limit]

    def forget_cooled(self, left: set[str]) -> None:
        """A sweep takes out what has lapsed; that much is left."""
        self.cooling = {
            limit: until
            for limit, until in self.cooling.items()
            if until > self.now or limit in left
        }

    # -- runs

    def acquire(
        self,
        run: str,
        limits: Group,
        parked_as: str,
        freed: set[str],
        under_way: bool,
        useless: str | None = None,
        reserved: str | None = None,
        skips: Limits = (),
        place: int | None = None,
        task: str | None = None,
    ) -> str | Full | tuple[str, str]:
        """Return the verdict, the limit that denies, ("behind", a limit), ("running", a run).

        "by reservation" leaves it to the caller to find out by which (``grant``).

        Args:
            freed: limits whose room is being handed over, step by step.
            under_way: some who wait can go on, and have not been come to yet.
            useless: a reservation of the group that its message waited in, where it asks
                with other limits by now; those of it are in ``freed`` already.
            reserved: the reservation of its own group that it would begin on.
            skips: it is dropped where one of these is busy.
            place: that in which its message waited before.
            task: its name, if it replaces an older one.
        """
        if (
            run in self.ended | self.rescued
            or run in self.lapsed
            or (run in self.parked and not self.waits(run))
        ):
            return "ended"
        if run in self.held:
            return "granted"
        if parked_as in self.begun:
            other = self.begun[parked_as]
            if other is None:
                return "done"
            if other in self.held and other not in self.lapsed:
                return ("running", other)
        if useless:
            self.unnoticed |= set(names(self.held[useless]))
            self._forget(useless)
        if parked_as and reserved:
            shut = (self.is_shut(limit, reserved) for limit in names(limits))
            probed = (self.probe_of(limit) not in (None, reserved) for limit in names(limits))
            if not any(shut) and not any(probed):
                return "by reservation"
            self.unnoticed |= set(names(limits))
            self._forget(reserved)
        refused = self._refusal(limits, freed, under_way)
        if refused and refused[0] == "heavy":
            return refused
        busy = refused and not self.closed and self._busy_limit(limits, skips)
        if busy:
            self._tell("skipped", limits)
            return "skipped", busy
        given_up = refused and not (task and self.replaceable(limits))
        given_up = given_up and self.refusal_to_wait(limits, place)
        if given_up:
            self._tell(given_up[0], limits)
            return given_up
        if refused:
            self._tell("denied", limits)
            return refused
        self.grant(run, limits, parked_as)
        return "granted"

    def _refusal(
        self, group: Group, freed: set[str], under_way: bool
    ) -> Full | tuple[str, str] | None:
        if self.closed:
            return "behind", "global"
        heavy = self.too_heavy(group)
        if heavy:
            return "heavy", heavy
        denied, limits = [], names(group)
        for limit in limits if self.config.enabled else ():
            if self.would_rise(limit, group):
                self.move(limit, self.own_max(limit) + 1)
            kind, refusal = self._denial_of(limit, group)
            if refusal:
                denied.append((kind, BREADTH.get(limit.partition(":")[0], 1), refusal))
        if denied:
            return min(denied, key=lambda one: one[:2])[-1]
        if self.waiting and self.config.enabled:
            for limit in limits:
                shared = limit.startswith(("global", "platform:", "task_type:"))
                if under_way and shared and self.is_limited(limit):
                    return "behind", limit
            for limit in limits:
                shut = limit in self.cooling or limit in self.probes
                if limit in freed or (under_way and shut):
                    return "behind", limit
            if any(one.limits == group for one in self.waiting.values()):
                return "behind", limits[-1]
        return None

    def _busy_limit(self, group: Group, skips: Limits) -> str | None:
        """Return the limit for which a run is dropped instead of waiting."""
        busy = [limit for limit in skips if self._denial_of(limit, group)[1]]
        if skips and any(one.limits == group for one in self.waiting.values()):
            busy.append(names(group)[-1])
        return next(iter(busy), None)

    def _denial_of(self, limit: str, group: Group) -> tuple[int, Full | tuple[str, str] | None]:
        """Return why a limit denies, and how early that is named."""
        held, most = self.count(limit), self.most(limit)
        if most == PAUSED:
            return 0, (limit, held, int(most))
        cools_until = self.cooling.get(limit, 0)
        if cools_until > self.now and cools_until >= self._rate_opens(limit):
            return 1, ("shut", limit)
        if self.probe_of(limit):
            return 1, ("probed", limit)
        if held + places(limit, group) > most:
            return 2, (limit, held, int(most))
        return 2, ("shut", limit) if self.is_shut(limit) else None

    def is_limited(self, limit: str) -> bool:
        """Return whether anything may deny a run of this limit."""
        adaptive = any(
            one.partition(":")[0] == limit.partition(":")[0] for one in self.config.adaptive
        )
        return self.most(limit) != math.inf or self.is_rated(limit) or adaptive

    def reservations(self, limits: Group) -> set[str]:
        """Return the living reservations of a group."""
        return {token for token in self.reserved - self.lapsed if self.held[token] == limits}

    def grant(self, run: str, limits: Group, parked_as: str, reserved: str | None = None) -> None:
        """A run begins, on a reservation or without."""
        self.go_first(run, limits, reserved)
        if reserved:
            freed = {limit for token, limit in self.freed if token == reserved}
            starts = {limit: self.starts.get(limit, {}).get(reserved) for limit in names(limits)}
            self._forget(reserved)
            self.freed |= {(run, limit) for limit in freed}
            for limit, start in starts.items():
                if start is not None and not self.config.rates_of(limit):
                    # Its rates were taken out meanwhile: it stays as the reservation's.
                    self.starts[limit][reserved] = start
        self.held[run] = limits
        self.start(run, limits, self.now)
        if parked_as:
            self.begun[parked_as] = run
            self.parked_as[run] = parked_as
        self._tell("acquired", limits)

    def _tell(self, what: str, group: Group) -> None:
        """Count it in all, and by platform and type; never by account."""
        self.counters[f"{what}:total"] += 1
        for limit in names(group):
            if limit.startswith(("platform:", "task_type:")):
                self.counters[f"{what}:{self.counted_as(limit)}"] += 1

    def counted_as(self, limit: str) -> str:
        """Return a limit's name if it may have one, else that of what is counted together."""
        if limit in flat_of(self.config) or len(self.named) < self.rooms:
            self.named.add(limit)
        return limit if limit in self.named else f"other/{limit.partition(':')[0]}"

    def release(self, run: str, mark: bool, done: bool, ending: str) -> bool:
        """Return whether it held anything."""
        held = run in self.held
        if held:
            if ending == "succeeded":
                for limit in [one for one in self.held[run] if self.probes.get(one) == run]:
                    self.end_probation(limit)
            if ending == "unbegun":
                self.take_start_back(run, self.held[run])
            if run in self.parked_as and done:
                self.begun[self.parked_as[run]] = None
            elif self.begun.get(self.parked_as.get(run, "")) == run:
                del self.begun[self.parked_as[run]]
            self.records.append(self.held[run])
            self._forget(run)
            self.counters["released:total"] += 1
        if mark or not held:
            self.ended.add(run)
        return held

    def take_back(self) -> int:
        """A sweep takes back all that are due."""
        due = set(self.lapsed)
        for token in due:
            reserved = token in self.reserved
            silent = token in self.silent and (token, "global") not in self.freed
            if not reserved:
                self.records.append(self.held[token])
            self._forget(token)
            what = "lapsed" if reserved else "reclaimed" if silent else "expired"
            self.counters[f"{what}:total"] += 1
            if not reserved:
                self.ended.add(token)
        return len(due)

    def tally(self, most: int) -> int:
        """Count the oldest records; return how many."""
        some, self.records = self.records[:most], self.records[most:]
        named = flat_of(self.config)
        for group in some:
            for limit in names(group):
                dimension = limit.partition(":")[0]
                own = dimension != "account" and limit in named
                if limit == "global":
                    self.counted[limit] += 1
                elif dimension in ("platform", "task_type") or own:
                    self.counted[self.counted_as(limit)] += 1
        return len(some)

    def delete_semaphore(self, limit: str) -> None:
        """An operator's DEL: frees the limit for good."""
        self.freed |= {(token, limit) for token in self.members(limit)}
        self.kept.pop(limit, None)
        self.unnoticed.add(limit)

    def _forget(self, token: str) -> None:
        limits = self.held.pop(token)
        if token in self.reserved:
            self.take_start_back(token, limits)
        self.lapsed.discard(token)
        self.silent.discard(token)
        self.reserved.discard(token)
        self.freed -= {(token, limit) for limit in names(limits)}

    # -- waiters

    def waits(self, run: str) -> bool:
        """Return whether a message waits that this run parked."""
        return any(one.run == run for one in self.waiting.values())

    def park(self, waiter: str, one: Waiting, returns: bool = True) -> str:
        """Return what becomes of a message; "parked" may become "handed over" at once.

        Args:
            returns: it waited before, or is known to find a place.
        """
        if one.run in self.parked | self.rescued:
            return "again"
        self.parked.add(one.run)
        if waiter in self.waiting:
            return "merged"
        other = self.replaceable(one.limits) if one.received is not None else None
        if other:
            self.counters["replaced:total"] += 1
            before = self.waiting[other]
            if (before.received or 0) > (one.received or 0):
                return "replaced"
            self.take_out(other)
            one = replace(one, score=before.score)
        elif not returns and self.crowd(one.limits):
            self._tell("crowded", one.limits)
            return "crowded"
        self.waiting[waiter] = one
        self.counters["parked:total"] += 1
        return "parked"

    def line(self, limit: str) -> set[str]:
        """Return who waits for a limit."""
        return {name for name, one in self.waiting.items() if limit in one.limits}

    def crowd(self, group: Group) -> tuple[str, str] | None:
        """Return the limit for which no more may wait."""
        for limit in names(group):
            most = self.config.bounds_of(limit).most
            known = sum((waiter, limit) not in self.unlined for waiter in self.line(limit))
            if most and known >= most:
                return "crowded", limit
        return None

    def overdue(self, group: Group, asked: float) -> tuple[str, str] | None:
        """Return the limit for which who asked at that time has waited for too long."""
        for limit in names(group):
            seconds = self.config.bounds_of(limit).seconds
            if seconds and asked + seconds <= self.now:
                return "overdue", limit
        return None

    def refusal_to_wait(self, limits: Group, place: int | None) -> tuple[str, str] | None:
        """Return why a run that was denied may not wait."""
        if place is None:
            return self.crowd(limits)
        return self.overdue(limits, place % RANK / 1000)

    def is_left(self, queued: bytes) -> bool:
        """Return whether a message is left in the queue in which it was seen, or is gone."""
        return queued != b"" and (self.is_behind or not self.queued[queued])

    def leave_queue(self, queued: bytes) -> None:
        """Take one message out of its queue, if it is there."""
        self.queued = +(self.queued - Counter([queued]))

    def replaceable(self, group: Group) -> str | None:
        """Return the waiter with these limits, of whatever weight, that a newer one replaces."""
        for waiter, one in self.waiting.items():
            if names(one.limits) == names(group) and one.received is not None:
                return waiter
        return None

    def join(
        self,
        waiter: str,
        run: str,
        limits: Group,
        score: float | None,
        *,
        may: bool = True,
        queued: bytes = b"",
    ) -> str:
        """Return what becomes of a message whose run has not asked.

        Args:
            score: if it waits.
            may: its state can be written.
            queued: itself, if it was only seen in its queue.
        """
        if run in self.parked | self.rescued:
            return "again"
        if self.is_left(queued):
            return "left"
        if waiter in self.waiting:
            if not may:
                return "forbidden"
            self.parked.add(run)
            self.leave_queue(queued)
            return "merged"
        if not self.config.enabled or all(one.limits != limits for one in self.waiting.values()):
            return "alone"
        if self.crowd(limits):
            return "crowded"
        if not may:
            return "forbidden"
        assert score is not None
        self._tell("denied", limits)
        self.park(waiter, Waiting(run, limits, int(score), asked=score % RANK / 1000))
        self.leave_queue(queued)
        return "joined"

    def has_place(self, waiter: str, run: str) -> bool:
        """Return whether a run's message waits, did, or goes back to the broker."""
        return run in self.parked | self.rescued or waiter in self.waiting

    def rescue(self, run: str, waiter: str) -> int:
        """Return 1 if a message has a place; if not, that run gives it none any more."""
        if run in self.parked or self.waits(run):
            return 1
        self.rescued.add(run)
        return 0

    def take_out(self, waiter: str) -> None:
        """It waits no more."""
        del self.waiting[waiter]

    def purge(self, looked_at: dict[Group, int], last: int) -> int:
        """The first of each of these groups go for good, if they asked in time; return how many."""
        gone = []
        for limits, count in looked_at.items():
            mine = [name for name, one in self.waiting.items() if one.limits == limits]
            mine.sort(key=lambda name: self.waiting[name].score)
            gone += [name for name in mine[:count] if self.waiting[name].score % RANK <= last]
        for waiter in gone:
            self.take_out(waiter)
        self.counters["cancelled:total"] += len(gone)
        return len(gone)

    def heads(self) -> Iterator[str]:
        """Yield the first waiter of each group, in the order of their places."""
        seen: set[Group] = set()
        for waiter, one in sorted(self.waiting.items(), key=lambda item: item[1].score):
            if one.limits not in seen:
                seen.add(one.limits)
                yield waiter

    # -- fair shares

    def is_own(self, limit: str | int) -> bool:
        """Return whether a limit is not one that is shared by those who take turns."""
        if not isinstance(limit, str):
            return False  # who takes turns is equally heavy
        dimension = limit.partition(":")[0]
        is_shared = dimension in ("global", "platform", "task_type")
        return not is_shared or dimension == self.config.shares()[0]

    def flow_of(self, one: Waiting) -> Flow:
        """Return with whom a waiter takes turns, and as whom."""
        shared = tuple(limit for limit in one.limits if not self.is_own(limit))
        start = f"{self.config.shares()[0]}:"
        name = next((limit for limit in names(one.limits) if limit.startswith(start)), "")
        return shared, one.score // RANK, name

    def flows(self) -> set[Flow]:
        """Return who could go on if the shared limits had room."""
        first: dict[tuple[Limits, str], Flow] = {}
        for waiter in self.heads():
            one = self.waiting[waiter]
            weight = tuple(limit for limit in one.limits if not isinstance(limit, str))
            if self.has_room((*filter(self.is_own, one.limits), *weight)):
                shared, rank, name = self.flow_of(one)
                first.setdefault((shared, name), (shared, rank, name))
        return set(first.values())

    def weight_of(self, flow: Flow) -> int:
        """Return the weight of a name of the fair dimension."""
        return self.config.shares()[1].get(flow[2].partition(":")[2], 1)

    def compare_shares(self, next_one: Waiting | None = None) -> None:
        """Look who waits for a turn; and count, before it goes on, whose turn it is."""
        if self.config.shares()[0] is None:
            return
        flows = self.flows()
        pairs = {(one, two) for one in flows for two in flows if one[:2] == two[:2] and one != two}
        self.lags = {pair: self.lags.get(pair, 0.0) for pair in pairs}
        if next_one:
            flow = self.flow_of(next_one)
            for one, two in pairs:
                if flow in (one, two):
                    ahead = 1 if flow == one else -1
                    self.lags[one, two] += ahead / self.weight_of(flow)
                    most = 2 * max(1 / self.weight_of(one), 1 / self.weight_of(two))
                    assert abs(self.lags[one, two]) <= most + 1e-9, f"{one} beside {two}"

    def next_ones(self) -> list[str]:
        """Return the waiters of which one goes on next: first of all, or of a fair name."""
        runnable = self.runnable()
        if self.config.shares()[0] is None:
            return runnable[:1]
        ones = {waiter: self.flow_of(self.waiting[waiter]) for waiter in runnable}
        rank = min((flow[1] for flow in ones.values()), default=0)
        firsts: dict[Flow, str] = {}
        for waiter, flow in ones.items():
            if flow[1] == rank:
                firsts.setdefault(flow, waiter)
        return list(firsts.values())

    def runnable(self) -> list[str]:
        """Return the waiters that are the first of their group and have room, in order."""
        return [waiter for waiter in self.heads() if self.has_room(self.waiting[waiter].limits)]

    def hand_over(self, waiter: str, until: float) -> None:
        """Room is reserved for a waiter, and its message put back."""
        one = self.waiting.pop(waiter)
        token = f"{one.run}:reserved"
        self.go_first(token, one.limits)
        self.held[token] = one.limits
        self.reserved.add(token)
        self.start(token, one.limits, until)
        self.counters["handed_over:total"] += 1
