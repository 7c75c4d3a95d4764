"""Metrics for Prometheus, read from Redis at each scrape.

All processes give the same answer, because no process counts anything itself. Scrape one of them,
by the route in ``api/monitoring_routes.py``. This needs the extra ``prometheus``. Accounts have no
labels unless the scrape asks for them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import nlargest
from itertools import accumulate, takewhile
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.config.flat import flat_of
from celery_concurrency.limiter.config.schema import MAX_RATES
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.inspect.health import is_out_of_memory, read_sweep_age
from celery_concurrency.limiter.inspect.moments import Moments
from celery_concurrency.limiter.inspect.observed import Observation
from celery_concurrency.limiter.inspect.usage import LimitUsage, read_usage
from celery_concurrency.limiter.inspect.workers import Worker, read_reported
from celery_concurrency.limiter.limits import GLOBAL, WILDCARD, dimension_of, other_of, split_limit
from celery_concurrency.limiter.stats.counters import read_counters
from celery_concurrency.limiter.stats.durations import BOUNDS, Histogram
from celery_concurrency.limiter.stats.names import read_names
from celery_concurrency.scripts.constants import BY_LIMIT, SHARED_DIMENSIONS

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

#: How many accounts, and other limits that the configuration does not name, are given if the
#: scrape asks for them: those with most waiters, then most tokens.
MAX_ACCOUNTS: Final = 1000

#: About how many bytes the gauges of limits, and their statistics, may take: names may be long.
GAUGES_BYTES: Final = 1_000_000
STATISTICS_BYTES: Final = 2_000_000
MOMENTS_BYTES: Final = 500_000
OBSERVED_BYTES: Final = 300_000
#: Lines per limit in each of them, and bytes of a line without the limit's name.
GAUGES_LINES: Final = 7
STATISTICS_LINES: Final = len(BY_LIMIT) + 2 * (len(BOUNDS) + 3)
MOMENTS_LINES: Final = 2 * MAX_RATES + 2
LINE_BYTES: Final = 90

LABELS: Final = ("dimension", "limit")
#: How workers' tasks wait; one does not know before it has been connected to its broker.
MODES: Final = ("handoff", "retry", "unknown")

#: Counters by limit, and counters of all runs, each with its help text.
_BY_LIMIT: Final = {
    "acquired": "Runs that got their tokens.",
    "denied": "How often a run was told to wait; a run that asks again counts again.",
    "refused": "Runs that reported a refusal by a platform.",
    "skipped": "Runs that were dropped because a limit of theirs was busy.",
    "crowded": "Runs that failed at once because too many tasks waited for a limit.",
    "overdue": "Tasks that failed because they had waited for as long as they may.",
}
_OBSERVED: Final = {
    "runs": "Runs that an observed limit has seen.",
    "denied": "Runs that an observed limit would have turned away at first.",
    "wait_seconds": "How long these runs would have waited for that limit alone.",
}
_IN_ALL: Final = {
    "released": "Runs that released their tokens.",
    "expired": "Runs whose tokens were taken back because their own time was over.",
    "reclaimed": "Runs whose tokens were taken back because their worker fell silent.",
    "lost": "Runs that went on after their tokens were taken back.",
    "parked": "Messages that were put into the waiting room.",
    "handed_over": "Waiting messages that got reserved room.",
    "lapsed": "Reservations on which no run began in time.",
    "cancelled": "Waiting messages that were cancelled or purged.",
    "replaced": "Messages that were cancelled because a newer one waits in their place.",
}


def expose(limiter: Limiter, *, accounts: bool = False) -> bytes:
    """Return the metrics in Prometheus' text format (``CONTENT_TYPE``).

    Args:
        limiter: the limiter to read.
        accounts: include the busiest accounts, and all names in use of your own dimensions.
    """
    registry = CollectorRegistry()
    registry.register(ConcurrencyCollector(limiter, accounts=accounts))
    return generate_latest(registry)


class ConcurrencyCollector(Collector):
    """Reads a limiter's metrics, as ``expose`` does; for a registry of your own."""

    def __init__(self, limiter: Limiter, *, accounts: bool = False) -> None:
        self._limiter = limiter
        self._accounts = accounts

    def collect(self) -> Iterator[Metric]:
        """Read all metrics; raises ``LimiterUnavailable`` if Redis can't be asked."""
        keyspace = self._limiter.keyspace
        stored = self._limiter.config.sync()
        usage = read_usage(keyspace, stored)
        configured = flat_of(stored.config)
        limits, left_out = self._shown(configured, dict(usage.limits()))
        yield from _gauges(limits, keyspace.now())
        timed = [limit for limit, one in limits.items() if one.rates or one.cooldown]
        timed_shown = _affordable(timed, MOMENTS_LINES, MOMENTS_BYTES)
        left_out |= set(timed[len(timed_shown) :])
        yield from _moments({limit: limits[limit] for limit in timed_shown}, keyspace.now())
        yield from _observed(usage.observed, self._accounts)
        yield GaugeMetricFamily(
            _name("waiting_for_moment"),
            "Tasks in the waiting room that wait for a limit which opens by itself.",
            usage.waiting_for_moment,
        )
        yield GaugeMetricFamily(
            _name("waiting_uncounted_groups"),
            "Groups of waiting tasks beyond those that celery_concurrency_waiting counts.",
            usage.uncounted_groups,
        )
        names = _in_order(configured, read_names(keyspace))
        shown = _affordable(names, STATISTICS_LINES, STATISTICS_BYTES)
        yield from _counters(read_counters(keyspace), shown)
        spans = self._limiter.durations.total(names)
        waits, holds = (_by_name(one, names, shown) for one in (spans.wait, spans.hold))
        yield _histogram("wait_seconds", "How long runs waited for their tokens.", waits)
        yield _histogram("hold_seconds", "How long runs held their tokens.", holds)
        left_out |= set(names) - set(shown)
        yield GaugeMetricFamily(
            _name("limits_left_out"),
            "Limits that are not given by name because there are too many.",
            len(left_out) + usage.unlisted_limits,
        )
        yield GaugeMetricFamily(
            _name("statistics_full"),
            "1 while further limits get no counters and histograms by name.",
            usage.statistics_full,
        )
        yield CounterMetricFamily(
            _name("misnamed_headers"),
            "Messages with a header that is nearly a tag, so it limits nothing.",
            sum(one.count for one in usage.misnamed_headers),
        )
        yield from _workers(read_reported(keyspace)[0])
        yield from _state(stored, read_sweep_age(keyspace))
        yield GaugeMetricFamily(
            _name("out_of_memory"),
            "1 while Redis is at its maxmemory and no task is admitted.",
            is_out_of_memory(keyspace),
        )

    def _shown(
        self, configured: Collection[str], usage: Mapping[str, LimitUsage]
    ) -> tuple[dict[str, LimitUsage], set[str]]:
        """Return the limits that are shown, the busiest first, and those left out.

        Accounts are in either only if they were asked for.
        """
        few: list[str] = []
        many: list[str] = []
        for limit in usage:
            dimension = split_limit(limit)[0]
            own = dimension != "account" and limit in configured
            is_few = own or dimension in (GLOBAL, *SHARED_DIMENSIONS)
            (few if is_few else many).append(limit)

        def busy(limit: str) -> tuple[int, int]:
            return usage[limit].waiting, usage[limit].current

        few.sort(key=busy, reverse=True)  # global, which counts all, comes first
        shown = _affordable(few, GAUGES_LINES, GAUGES_BYTES)
        left_out = set(few[len(shown) :])
        if self._accounts:
            busiest = nlargest(MAX_ACCOUNTS, many, busy)
            shown += _affordable(busiest, GAUGES_LINES, GAUGES_BYTES)
        return {limit: usage[limit] for limit in shown}, left_out


def _gauges(limits: Mapping[str, LimitUsage], now: float) -> Iterator[Metric]:
    current = _gauge("current", "Places taken by living tokens, reserved ones included.")
    most = _gauge("max", "How many tokens the limit allows; 0 is unlimited.")
    paused = _gauge("paused", "1 while the limit is paused and admits no task.")
    waiting = _gauge("waiting", "Tasks in the waiting room that need this limit.")
    places = _gauge("waiting_max", "How many tasks may wait for this limit, if that is bounded.")
    oldest = _gauge(
        "oldest_wait_seconds",
        "How long the longest-waiting task has waited; 0 while none waits.",
    )
    adaptive = _gauge(
        "adaptive_limit",
        "The value in force of an adaptive limit; if it is only observed, its own value.",
    )
    for limit, usage in limits.items():
        labels = _labels(limit)
        current.add_metric(labels, usage.current)
        most.add_metric(labels, usage.max)
        paused.add_metric(labels, usage.paused)
        waiting.add_metric(labels, usage.waiting)
        if usage.bounds.most:
            places.add_metric(labels, usage.bounds.most)
        since = usage.waiting_since
        oldest.add_metric(labels, max(0.0, now - since) if since is not None else 0)
        if usage.adaptive:
            own = usage.adaptive.current
            # A pause hides the value in force, and a configured maximum may be higher.
            observed = usage.adaptive.mode == "observe"
            adaptive.add_metric(labels, own if observed else min(own, usage.allows))
    yield from (current, most, paused, waiting, places, oldest, adaptive)


def _moments(limits: Mapping[str, Moments], now: float) -> Iterator[Metric]:
    labels_of_rate = (*LABELS, "per")
    used = GaugeMetricFamily(
        _name("rate_used"),
        "Runs that began in the last window of per seconds.",
        labels=labels_of_rate,
    )
    most = GaugeMetricFamily(
        _name("rate_max"),
        "How many runs may begin in any window of per seconds.",
        labels=labels_of_rate,
    )
    opens = _gauge("opens_in_seconds", "Time until the limit opens by itself; 0 while it is open.")
    cools = _gauge("cooldown_seconds", "Time left of the limit's cool-down.")
    for limit, moments in limits.items():
        labels = _labels(limit)
        # Of two rates with the same window, only the lower one matters.
        rates = sorted(moments.rates, key=lambda rate: rate.max, reverse=True)
        for per, rate in {rate.per: rate for rate in rates}.items():
            used.add_metric((*labels, str(per)), rate.used)
            most.add_metric((*labels, str(per)), rate.max)
        shut = moments.shut(now)
        opens.add_metric(labels, shut.seconds if shut else 0)
        if moments.cooldown:
            cools.add_metric(labels, max(0.0, moments.cooldown.until - now))
    yield from (used, most, opens, cools)


def _observed(found: Iterable[Observation], accounts: bool) -> Iterator[Metric]:
    """Return what observed limits would have done; a changed limit starts to count again."""
    labels = (*LABELS, "kind")
    families = [
        CounterMetricFamily(_name(f"observed_{name}"), help_, labels=labels)
        for name, help_ in _OBSERVED.items()
    ]
    bytes_left = OBSERVED_BYTES
    for one in found:
        dimension, name = split_limit(one.limit)
        bytes_left -= len(families) * (LINE_BYTES + len(one.limit.encode()))
        if bytes_left > 0 and (accounts or dimension != "account" or name == WILDCARD):
            for family, count in zip(
                families, (one.runs, one.would_deny, one.would_wait.total), strict=True
            ):
                family.add_metric((*_labels(one.limit), one.kind), count)
    yield from families


def _in_order(configured: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return names, those in the configuration first.

    The order is always the same: a limit that was once given by name must not be counted with
    the others at the next scrape, because a counter must not go back.
    """
    places = {limit: place for place, limit in enumerate(configured)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def _affordable(limits: list[str], lines: int, most: int) -> list[str]:
    """Return as many of these limits as fit into ``most`` bytes, the first ones."""
    sizes = (lines * (LINE_BYTES + len(limit.encode())) for limit in limits)
    return limits[: sum(1 for _ in takewhile(most.__ge__, accumulate(sizes)))]


def _shown_as(limit: str, shown: Collection[str]) -> str:
    """Return the name under which a limit is given: its own, or its dimension's "other" name."""
    # Names without a colon: "global", and limits that are counted together.
    return limit if ":" not in limit or limit in shown else other_of(dimension_of(limit))


def _counters(counted: Mapping[str, int], names: Collection[str]) -> Iterator[Metric]:
    shown = set(names)
    by_limit: dict[str, Counter[str]] = {what: Counter({GLOBAL: 0}) for what in _BY_LIMIT}
    for name, count in counted.items():
        what, _, limit = name.partition(":")
        if what in by_limit:
            by_limit[what][GLOBAL if limit == "total" else _shown_as(limit, shown)] += count
    for what, help_ in _BY_LIMIT.items():
        family = CounterMetricFamily(_name(what), help_, labels=LABELS)
        for limit, count in by_limit[what].items():
            family.add_metric(_labels(limit), count)
        yield family
    for what, help_ in _IN_ALL.items():
        yield CounterMetricFamily(_name(what), help_, counted.get(f"{what}:total", 0))


def _by_name(
    found: Mapping[str, Histogram], names: Iterable[str], shown: Iterable[str]
) -> dict[str, Histogram]:
    """Return the histograms of the limits that are shown, and one for the others together."""
    known, by_name = set(names), set(shown)
    merged: dict[str, Histogram] = {}
    for limit, histogram in sorted(found.items()):
        if ":" not in limit or limit in known:  # others have lost their name, and are being removed
            merged.setdefault(_shown_as(limit, by_name), Histogram()).add(histogram)
    return merged


def _histogram(name: str, help_: str, by_limit: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(_name(name), help_, labels=LABELS)
    for limit, histogram in by_limit.items():
        buckets = [
            ("+Inf" if bound is None else str(bound), up_to)
            for bound, up_to in histogram.cumulative()
        ]
        family.add_metric(_labels(limit), buckets, histogram.milliseconds / 1000)
    return family


def _workers(reported: Iterable[Worker]) -> Iterator[Metric]:
    alive, silent = Counter(dict.fromkeys(MODES, 0)), 0
    for one in reported:
        if one.alive:
            alive[one.mode if one.mode in MODES else "unknown"] += 1
        else:
            silent += 1
    family = GaugeMetricFamily(
        _name("workers"), "Workers that are alive, by how their tasks wait.", labels=("mode",)
    )
    for mode, count in alive.items():
        family.add_metric((mode,), count)
    yield family
    yield GaugeMetricFamily(
        _name("workers_silent"),
        "Workers that were not heard of lately, and whose tokens are not taken back yet.",
        silent,
    )


def _state(stored: Stored, sweep_age: float | None) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        _name("enabled"), "0 while every task is admitted and only counted.", stored.config.enabled
    )
    yield GaugeMetricFamily(_name("config_version"), "The configuration's version.", stored.version)
    yield GaugeMetricFamily(
        _name("config_invalid"),
        "1 while a configuration written by hand is not valid, and so not in force.",
        stored.problem is not None,
    )
    yield GaugeMetricFamily(
        _name("sweep_age_seconds"),
        "Time since the last sweep; the workers together sweep once a second.",
        sweep_age,
    )


def _gauge(name: str, help_: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_name(name), help_, labels=LABELS)


def _name(name: str) -> str:
    # Distinct from celery-exporter's, which begin with celery_task_, celery_worker_, celery_queue_.
    return f"celery_concurrency_{name}"


def _labels(limit: str) -> tuple[str, str]:
    return dimension_of(limit), limit
