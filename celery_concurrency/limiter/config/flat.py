"""The flat copy of a configuration: what the scripts read, a field a limit.

``schema.py`` has the configuration, ``store.py`` stores both; ``scripts/configure.lua`` puts the
texts of rates, bounds, adaptive and observed limits, and shares, into hashes of their own.
"""

import json
from collections.abc import Iterable, Mapping

from celery_concurrency.limiter.config.maximum import Mode, enforced, observed
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.limits import split_limit
from celery_concurrency.scripts.constants import PAUSED

#: A kind, and a limit or a wildcard.
_Entry = tuple[str, str]


def flat_of(config: Config) -> dict[str, str]:
    """Return the copy that the scripts read, one field a limit.

    Returns:
        ``enabled`` ("1" or "0"), ``timeout`` (seconds), ``dimensions``
        (``dimensions_key``), ``global``, and ``<dimension>:<name>`` or
        ``<dimension>:*``, each a count with 0 for unlimited and -1 for paused. Where
        there are rates: ``rated`` (their dimensions, as ``:account:*:platform:*:``) and
        ``rates`` (a JSON object of limit or wildcard to ``"1/30 15/86400"``). The same for
        adaptive limits: ``adapting``, and ``adaptive`` (to ``"1 10 0.5 60 enforce"``). And for
        bounds on waiting: ``bounded``, and ``bounds`` (to ``"100/600"``; 0 for none).
        And for what is only observed: ``observing``, and ``observed`` (of ``max <limit>``,
        ``rates <limit>`` and ``adaptive <limit>`` to such texts; empty where the limit's own is
        in force, which takes the place of its wildcard's). Where a dimension is fair: ``fair``,
        that dimension, and ``shares`` (of limit to weight).
    """
    counts = {limit: enforced(maximum) for limit, maximum in config.maxima()}
    counts.update(dict.fromkeys(config.paused, PAUSED))
    return {
        "enabled": "1" if config.enabled else "0",
        "timeout": str(config.timeout),
        "dimensions": dimensions_key(config.dimensions),
        **{limit: str(count) for limit, count in counts.items()},
        **_flat("rated", "rates", _rate_texts(config, "enforce")),
        **_flat("observing", "observed", _observed_texts(config)),
        **_flat("adapting", "adaptive", _adaptive_texts(config)),
        **_flat("bounded", "bounds", _bounds_texts(config)),
        **_shares(config),
    }


def _shares(config: Config) -> dict[str, str]:
    dimension, weights = config.shares()
    if dimension is None:
        return {}
    by_limit = {f"{dimension}:{name}": str(weight) for name, weight in weights.items()}
    return {"fair": dimension, "shares": json.dumps(by_limit, ensure_ascii=False)}


def _rate_texts(config: Config, mode: Mode, kind: str = "") -> dict[_Entry, str]:
    """Return the rates that have this mode; "" where all of a limit have another."""
    return {
        (kind, limit): " ".join(f"{rate.max}/{rate.per}" for rate in rates if rate.mode == mode)
        for limit, rates in config.rates.items()
    }


def _observed_texts(config: Config) -> dict[_Entry, str]:
    """Return what is observed; "" where what a limit has is in force."""
    maxima = {("max ", limit): observed(maximum) for limit, maximum in config.maxima()}
    return {
        **{entry: str(maximum or "") for entry, maximum in maxima.items()},
        **_rate_texts(config, "observe", "rates "),
        **{
            ("adaptive ", limit): str(one) if one.mode == "observe" else ""
            for limit, one in config.adaptive.items()
        },
    }


def _adaptive_texts(config: Config) -> dict[_Entry, str]:
    return {
        ("", limit): f"{one.min} {one.max} {one.decrease!r} {one.every} {one.mode}"
        for limit, one in config.adaptive.items()
    }


def _bounds_texts(config: Config) -> dict[_Entry, str]:
    return {
        ("", limit): f"{one.most or 0}/{one.seconds or 0}" for limit, one in config.waiting.items()
    }


def _flat(dimensions: str, entries: str, texts: Mapping[_Entry, str]) -> dict[str, str]:
    """Return two fields of the flat copy, and none where nothing is said.

    Args:
        dimensions: the field that has the dimensions in which something is said.
        entries: the field that has the texts in these dimensions.
        texts: by kind and limit or wildcard; empty ones say nothing.
    """

    def place_of(entry: _Entry) -> _Entry:
        return entry[0], split_limit(entry[1])[0]

    said = {place_of(entry) for entry, text in texts.items() if text}
    if not said:
        return {}
    told = {"".join(entry): text for entry, text in texts.items() if place_of(entry) in said}
    return {
        dimensions: _dimensions_of(dimension for _, dimension in said),
        entries: json.dumps(told, ensure_ascii=False),
    }


def _dimensions_of(limits: Iterable[str]) -> str:
    """Return the dimensions of these limits as the scripts look for one: ``:account:*:``."""
    dimensions = sorted({split_limit(limit)[0] for limit in limits})
    return f":{':*:'.join(dimensions)}:*:"


def dimensions_key(dimensions: Iterable[str]) -> str:
    """Return the names of the user's own dimensions as one text to compare by."""
    return json.dumps(sorted(dimensions), ensure_ascii=False)
