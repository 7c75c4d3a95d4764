"""The route that tells callers who they are and what they may do; the page calls it.

``author.py`` and ``access.py`` find it out.
"""

from flask import Response

from celery_concurrency.api.access import may_change
from celery_concurrency.api.author import known_operator
from celery_concurrency.api.envelope import success
from celery_concurrency.api.models import Caller
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter

routes = Routes()


@routes.add("GET", "/caller", data=Caller)
def get_caller(limiter: Limiter) -> Response:
    """Return who you are, and whether you may make changes."""
    caller = Caller(operator=known_operator(), may_change=may_change())
    return success(caller.model_dump())
