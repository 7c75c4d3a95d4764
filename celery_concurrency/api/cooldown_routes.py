"""The routes of cool-downs (``limiter/cooldowns.py``): list, set and lift them.

``config_routes.py`` has what stays until somebody changes it.
"""

from typing import Any

from flask import Response
from pydantic import TypeAdapter

from celery_concurrency.api.author import author, log_action
from celery_concurrency.api.envelope import failure, success
from celery_concurrency.api.models import CooldownChange, CooldownList, LiftQuery
from celery_concurrency.api.routes import Routes, validated
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.cooldowns import Cooldown

routes = Routes()


@routes.add("GET", "/cooldowns", data=CooldownList)
def get_cooldowns(limiter: Limiter) -> Response:
    """Return the limits that cool down, the last to open first; 1,000 at most."""
    cooldowns, total = limiter.cooldowns.read()
    return success(CooldownList(cooldowns=cooldowns, total=total).model_dump())


@routes.add("POST", "/cooldowns", data=Cooldown, body=CooldownChange)
def set_cooldown(limiter: Limiter, body: Any) -> Response:
    """Let a limit admit no task for a number of seconds; running tasks go on.

    If it already cools down, the longer of the two stands and is returned.
    """
    by = author()
    change = validated(CooldownChange, body, "invalid_cooldown")
    limit, seconds = change.limit, change.seconds
    doubts = limiter.cooldowns.check(limit)
    until = limiter.cooldowns.set(limit, seconds, change.reason, by.operator or "")
    log_action(
        by, "cooled down by operator", "%s cools down for %g s", limit, seconds,
        limit=limit, seconds=seconds, until=until, reason=change.reason,
    )  # fmt: skip
    stands = limiter.cooldowns.find(limit)
    # A short one may be over or lifted by now.
    stands = stands or Cooldown(limit, until, 0.0, None, change.reason, by.operator or "")
    data: Any = TypeAdapter(Cooldown).dump_python(stands)
    return success(data, "cooled_down", [one.detail() for one in doubts])


@routes.add("DELETE", "/cooldowns", data=Cooldown, query=LiftQuery, refusals=(404,))
def lift_cooldown(limiter: Limiter, query: LiftQuery) -> Response:
    """Let a limit that cools down admit runs again, at once."""
    by, limit = author(), query.limit
    # Read it first: afterwards it is gone.
    lifted = limiter.cooldowns.find(limit)
    if lifted is None or not limiter.cooldowns.lift(limit):
        return failure(404, "not_cooling")
    log_action(by, "cool-down lifted by operator", "cool-down of %s lifted", limit, limit=limit)
    return success(TypeAdapter(Cooldown).dump_python(lifted), "cool_down_lifted")
