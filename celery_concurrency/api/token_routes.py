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
from celery_concurrency.limiter.inspect.short_ids import whole_id, whole_token

routes = Routes()


@routes.add("GET", "/tokens", data=Page, query=TokensQuery, refusals=(409,))
def get_tokens(limiter: Limiter, query: TokensQuery) -> Response:
    """Return which runs hold tokens, the oldest first, a page at a time.

    If more than 5,000 hold tokens, they are sorted by expiry instead; and for one worker, 5,000 are
    looked at.

    With a task's id, only the tokens of that task, all on one page.
    """
    if query.task:
        runs = find_runs(limiter.keyspace, whole_id(limiter.keyspace, query.task))
        tokens = [
            one
            for one in runs
            if query.limit in ("", *one.limits) and query.worker in ("", one.worker)
        ]
        page = Page(tokens=tokens, total=len(tokens), next=None)
    else:
        page = read_tokens(
            limiter.keyspace, query.limit, query.count, query.cursor, worker=query.worker
        )
    return success(page.model_dump())


@routes.add("DELETE", "/tokens/<concurrency_id:token>", data=Holder, refusals=(409,))
def delete_token(limiter: Limiter, token: str) -> Response:
    """Release a token; its run goes on without it.

    The first characters of its name are enough, at least four, if no other id begins with them.
    """
    by, token = author(), whole_token(limiter.keyspace, token)
    # Read first: if Redis is away, say so before anything is begun.
    holder = find_token(limiter.keyspace, token)
    if holder is None or not limiter.release(token):
        return failure(404, "not_held")
    note_action(limiter.keyspace, by, "released", token)
    log_action(
        by, "released by operator", "token %s of %s released", token, holder.task,
        task_id=holder.task_id, task_name=holder.task, token=token,
    )  # fmt: skip
    return success(holder.model_dump(), "released")
