"""A day of statistics as the API tells it, made up."""

from __future__ import annotations

import math
from typing import Any

RESOLUTION = 300


def made_up(now: float, hours: int = 24, resolution: int = RESOLUTION) -> dict[str, Any]:
    """Return the data of ``GET /stats/history``: busy by day, with a jam in it."""
    end = int(now) // resolution * resolution
    count = hours * 3600 // resolution
    points = [
        _point(end - (count - 1 - place) * resolution, place / count) for place in range(count)
    ]
    return {"resolution": resolution, "since": points[0]["at"], "points": points, "left_out": 0}


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


def backlog(now: float) -> dict[str, Any]:
    """Return the data of ``GET /stats/backlog``: it rises for half an hour, and falls."""
    at = [now - 60 * minute for minute in range(59, -1, -1)]
    douyin = [round(max(0, 9 - abs(minute - 30) / 3)) + 4 for minute in range(60)]
    others = [minute // 12 % 3 for minute in range(60)]
    every = [sum(some) for some in zip(douyin, others, strict=True)]
    limits = {"global": every, "platform:douyin": douyin, "task_type:publish": douyin,
              "platform:xiaohongshu": others}  # fmt: skip
    return {"at": at, "limits": limits}


def adaptive(now: float, limit: str = "platform:douyin") -> dict[str, Any]:
    """Return the data of ``GET /adaptive/history``: strict for some hours, twice."""
    start = int(now) - 86_400
    current, most, every = 10, 10, 900
    moves: list[dict[str, Any]] = []
    samples, refusals = [], []
    for second in range(start, int(now), 60):
        part = (second - start) / 86_400
        hidden = 3 if 0.25 < part < 0.4 or 0.7 < part < 0.8 else 12
        if (second - start) % every == 0:
            before = current
            if current > hidden:
                current = max(1, current // 2)
            elif current < most:
                current += 1
            if current != before:
                reason = "429" if current < before else "used in full"
                moves.append({"limit": limit, "at": float(second), "before": before,
                              "after": current, "reason": reason})  # fmt: skip
        busy = min(current, round(7 + 3 * math.sin(part * 19)))
        samples.append({"at": second + 0.3, "current": current, "running": busy})
        if (second - start) % RESOLUTION == 0:
            refusals.append({"at": second, "count": max(0, busy - hidden) * 4})
    entry = {"min": 1, "max": most, "decrease": 0.5, "every": every}
    stands = {"limit": limit, "entry": entry, "current": current, "in_force": current,
              "moved": moves[-1]["at"]}  # fmt: skip
    return {"limit": stands, "moves": moves, "samples": samples, "resolution": RESOLUTION,
            "refusals": refusals}  # fmt: skip
