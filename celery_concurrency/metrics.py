"""Metrics for Prometheus, read from Redis at each scrape.

All processes give the same, as no process counts anything itself: scrape one of them, by the
route in ``api/monitoring_routes.py``. Needs the extra ``prometheus``. Accounts have no labels,
unless that is asked for.
"""

import heapq
from collections.abc import Iterator, Mapping
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
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.inspect.health import read_sweep_age
from celery_concurrency.limiter.inspect.usage import LimitUsage, read_usage
from celery_concurrency.limiter.limits import GLOBAL, split_limit
from celery_concurrency.limiter.stats.durations import Histogram

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

#: How many limits of accounts are given, and of others that the configuration does not name,
#: if they are asked for: those with most waiters and then most tokens.
MAX_ACCOUNTS: Final = 1000

LABELS: Final = ("dimension", "limit")

#: Counters by limit, and counters of all runs; each with its help.
_BY_LIMIT: Final = {
    "acquired": "Runs that were given their tokens.",
    "denied": "Times that a run was told to wait; one that asks again counts again.",
}
_IN_ALL: Final = {
    "released": "Runs that gave their tokens back.",
    "expired": "Runs whose tokens were taken back, as their own time was over.",
    "reclaimed": "Runs whose tokens were taken back, as their worker had fallen silent.",
    "lost": "Runs that went on after their tokens were taken back.",
    "parked": "Messages that were put into the waiting room.",
    "handed_over": "Waiting messages that room was reserved for.",
    "lapsed": "Reservations that no run has begun on in time.",
    "cancelled": "Waiting messages that were cancelled, or purged.",
}


def expose(limiter: Limiter, *, accounts: bool = False) -> bytes:
    """Return the metrics in Prometheus' text format (``CONTENT_TYPE``).

    Args:
        limiter: whose.
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
        stored = self._limiter.config.sync()
        usage = read_usage(self._limiter.keyspace, stored)
        yield from self._limits(stored.config, dict(usage.limits()))
        yield GaugeMetricFamily(
            _name("waiting_uncounted_groups"),
            "Groups of waiting tasks that were too many to count in celery_concurrency_waiting.",
            usage.uncounted_groups,
        )
        yield from _counters(self._limiter.stats.window("total"))
        spans = self._limiter.durations.total()
        yield _histogram("wait_seconds", "How long runs waited for their tokens.", spans.wait)
        yield _histogram("hold_seconds", "How long runs held their tokens.", spans.hold)
        yield from _state(stored, read_sweep_age(self._limiter.keyspace))

    def _limits(self, config: Config, usage: Mapping[str, LimitUsage]) -> Iterator[Metric]:
        current = _gauge("current", "Living tokens, reserved ones included.")
        most = _gauge("max", "How many tokens the limit allows; 0 is unlimited.")
        paused = _gauge("paused", "1 while the limit admits nobody, whatever its max.")
        waiting = _gauge("waiting", "Tasks in the waiting room that need this limit.")
        for limit in self._shown(config, usage):
            labels, of_limit = _labels(limit), usage[limit]
            current.add_metric(labels, of_limit.current)
            most.add_metric(labels, of_limit.max)
            paused.add_metric(labels, of_limit.paused)
            waiting.add_metric(labels, of_limit.waiting)
        yield from (current, most, paused, waiting)

    def _shown(self, config: Config, usage: Mapping[str, LimitUsage]) -> Iterator[str]:
        """Yield the limits that are shown: a few, and accounts if they are asked for."""
        named = config.flat()
        many: list[str] = []
        for limit in usage:
            dimension = split_limit(limit)[0]
            own = dimension != "account" and limit in named
            if own or dimension in (GLOBAL, "platform", "task_type"):
                yield limit
            else:
                many.append(limit)
        if self._accounts:
            yield from heapq.nlargest(
                MAX_ACCOUNTS, many, lambda limit: (usage[limit].waiting, usage[limit].current)
            )


def _counters(counted: Mapping[str, int]) -> Iterator[Metric]:
    for what, help_ in _BY_LIMIT.items():
        family = CounterMetricFamily(_name(what), help_, labels=LABELS)
        family.add_metric(_labels(GLOBAL), counted.get(f"{what}:total", 0))
        for name, count in counted.items():
            limit = name.removeprefix(f"{what}:")
            if limit not in (name, "total"):
                family.add_metric(_labels(limit), count)
        yield family
    for what, help_ in _IN_ALL.items():
        yield CounterMetricFamily(_name(what), help_, counted.get(f"{what}:total", 0))


def _histogram(name: str, help_: str, by_limit: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(_name(name), help_, labels=LABELS)
    for limit, histogram in sorted(by_limit.items()):
        buckets = [
            ("+Inf" if bound is None else str(bound), up_to)
            for bound, up_to in histogram.cumulative()
        ]
        family.add_metric(_labels(limit), buckets, histogram.milliseconds / 1000)
    return family


def _state(stored: Stored, sweep_age: float | None) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        _name("enabled"), "0 while everybody is admitted, and only counted.", stored.config.enabled
    )
    yield GaugeMetricFamily(_name("config_version"), "The configuration's version.", stored.version)
    yield GaugeMetricFamily(
        _name("config_invalid"),
        "1 while a configuration was written by hand that is not valid and not in force.",
        stored.problem is not None,
    )
    yield GaugeMetricFamily(
        _name("sweep_age_seconds"),
        "Time since a worker swept last; all of them together do so each second.",
        sweep_age,
    )


def _gauge(name: str, help_: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_name(name), help_, labels=LABELS)


def _name(name: str) -> str:
    # Beside celery-exporter's, which begin with celery_task_, celery_worker_, celery_queue_.
    return f"celery_concurrency_{name}"


def _labels(limit: str) -> tuple[str, str]:
    return split_limit(limit)[0], limit
