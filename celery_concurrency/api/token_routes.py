"""The routes of the tokens: who holds them (``limiter/inspect/holders.py``), and a release."""

from flask import Response

from celery_concurrency.api.author import author, log_action
from celery_concurrency.api.envelope import failure, success
from celery_concurrency.api.models import TokensQuery
from celery_concurrency.api.routes import Routes
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.actions import note_action
from celery_concurrency.limiter.inspect.explanation import find_runs
from celery_concurrency.limiter.inspect.holders import Holder, Page, find_token, read_tokens

routes = Routes()


@routes.add("GET", "/tokens", data=Page, query=TokensQuery)
def get_tokens(limiter: Limiter, query: TokensQuery) -> Response:
    """Return who holds tokens, the soonest to expire first, a page at a time.

    Or those of one task: it has a few, and they come all at once.
    """
    if query.task:
        runs = find_runs(limiter.keyspace, query.task)
        tokens = [one for one in runs if query.limit in ("", *one.limits)]
        page = Page(tokens=tokens, total=len(tokens), next=None)
    else:
        page = read_tokens(limiter.keyspace, query.limit, query.count, query.cursor)
    return success(page.model_dump())


@routes.add("DELETE", "/tokens/<concurrency_id:token>", data=Holder)
def delete_token(limiter: Limiter, token: str) -> Response:
    """Release a token for its holder, who goes on running without it."""
    by = author()
    # Read first: if Redis is away, that is answered before anything is begun.
    holder = find_token(limiter.keyspace, token)
    if holder is None or not limiter.release(token):
        return failure(404, "not_held")
    note_action(limiter.keyspace, by, "released", token)
    log_action(
        by, "released by operator", "token %s of %s released", token, holder.task,
        task_id=holder.task_id, task_name=holder.task, token=token,
    )  # fmt: skip
    return success(holder.model_dump(), "released")
