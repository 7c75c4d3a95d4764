"""Durations as people type them: ``90s``, ``10m``, ``2h``, ``1d``; rates and adaptive limits too.

``output.py`` prints them.
"""

import re
from typing import Any, Final

import click

from celery_concurrency.text import printable

UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
#: A rate, such as ``15/1d``.
RATE: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9}[smhd])(:observe)?", re.ASCII)
#: The range of an adaptive limit, such as ``1-10``; ``,every=2m,decrease=0.7`` may follow.
RANGE: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,9})((?:,.*)?)", re.ASCII)


class Duration(click.ParamType[int]):
    """A duration in seconds.

    Args:
        most: the longest, in seconds.
    """

    name = "duration"

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds of a text like ``10m``."""
        seconds = value if isinstance(value, int) else seconds_of(value)
        if seconds is None:
            self.fail(f"'{printable(value)}' is not a duration: use 90s, 10m, 2h or 1d", param, ctx)
        if not 0 < seconds <= self.most:
            self.fail(f"{value} is not between 1s and {shortest(self.most)}", param, ctx)
        return seconds


def seconds_of(text: str) -> int | None:
    """Return the seconds of a duration; None if the text is not one."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    return int(found[1]) * UNITS[found[2]] if found else None


def shortest(seconds: int) -> str:
    """Return seconds as a duration in the largest unit that leaves no remainder."""
    size, unit = max((size, unit) for unit, size in UNITS.items() if seconds % size == 0)
    return f"{seconds // size}{unit}"


def rates_of(text: str) -> list[dict[str, int | str]] | None:
    """Return rates such as ``1/30s,15/1d`` as the configuration has them; None if not valid.

    ``1/30s:observe`` is only observed.
    """
    found = [RATE.fullmatch(part.strip()) for part in text.split(",")]
    if not all(found):
        return None
    return [
        {
            "max": int(one[1]),
            "per": seconds_of(one[2]) or 0,
            **({"mode": "observe"} if one[3] else {}),
        }
        for one in found
        if one is not None
    ]


def adaptive_of(text: str) -> dict[str, Any] | None:
    """Return a text such as ``1-10,every=2m`` as the configuration has it; None if not valid.

    Options that it does not name are left out and stay as they are.
    """
    found = RANGE.fullmatch(text)
    if not found:
        return None
    entry: dict[str, Any] = {"min": int(found[1]), "max": int(found[2])}
    for part in found[3].split(",")[1:]:
        name, _, value = part.strip().partition("=")
        parsed = _option(name, value)
        if parsed is None or name in entry:
            return None
        entry[name] = parsed
    return entry


#: The options of an adaptive limit, and how to write each.
OPTIONS: Final = {
    "every": "needs a unit: 90s, 2m or 1h",
    "decrease": "must be more than 0 and less than 1, such as 0.5",
    "mode": "must be enforce or observe",
}


def adaptive_problem(text: str) -> str | None:
    """Return which option of ``1-10,every=90`` is wrong, and how; None if there are none."""
    found = RANGE.fullmatch(text)
    named = set()
    for part in found[3].split(",")[1:] if found else ():
        name, _, value = part.strip().partition("=")
        if name not in OPTIONS:
            return f"{name!r} is not one of its options: {', '.join(OPTIONS)}"
        if name in named:
            return f"{name} is given twice"
        if _option(name, value) is None:
            return f"{name} {OPTIONS[name]}"
        named.add(name)
    return None


def _option(name: str, value: str) -> int | float | str | None:
    """Return the value of an option of an adaptive limit; None if it is not valid."""
    if name == "every":
        return seconds_of(value)
    if name == "decrease":
        return float(value) if re.fullmatch(r"0?\.[0-9]{1,9}", value, re.ASCII) else None
    return value if name == "mode" and value in ("enforce", "observe") else None
