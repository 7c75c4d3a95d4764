"""A day of statistics as the API tells it, made up."""

from __future__ import annotations

import math
from typing import Any

RESOLUTION = 300


def made_up(now: float, hours: int = 24) -> dict[str, Any]:
    """Return the data of ``GET /stats/history``: busy by day, with a jam in it."""
    end = int(now) // RESOLUTION * RESOLUTION
    count = hours * 3600 // RESOLUTION
    points = [
        _point(end - (count - 1 - place) * RESOLUTION, place / count) for place in range(count)
    ]
    return {"resolution": RESOLUTION, "points": points, "left_out": 0}


def _point(at: int, part: float) -> dict[str, Any]:
    busy = round(40 + 35 * math.sin(part * 2 * math.pi) + 6 * math.sin(part * 60))
    jam = max(0.0, 1 - abs(part - 0.7) * 8)
    wait, hold = 0.4 + 40 * jam, 3 + math.sin(part * 30)
    return {
        "at": at,
        "counters": {
            "acquired:total": busy,
            "acquired:platform:douyin": busy // 2,
            "denied:total": round(30 * jam) + 2,
            "parked:total": round(28 * jam) + 2,
        },
        "wait": {"global": _times(busy, wait), "platform:douyin": _times(busy // 2, wait * 1.4)},
        "hold": {"global": _times(busy, hold), "platform:douyin": _times(busy // 2, hold * 0.9)},
    }


def _times(count: int, typical: float) -> dict[str, float]:
    return {"count": count, "p50": typical, "p95": typical * 2.1, "p99": typical * 3.2}
