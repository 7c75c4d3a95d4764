"""Helpers for the tests of users' tasks, with pytest (``pytest_plugin.py``) or without.

``Concurrency`` tells whether a task would wait and for which limit, without a worker or a
broker. With a worker, it tells whether a task does wait.
"""

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self
from unittest.mock import patch

from celery import Celery
from celery.canvas import Signature
from celery.result import AsyncResult

from celery_concurrency.errors import LimitReached
from celery_concurrency.limiter import Limiter, connect
from celery_concurrency.limiter.limits import BUILTIN_TAGS, OTHER_TAGS
from celery_concurrency.limiter.outcomes import Denied
from celery_concurrency.worker import gate
from celery_concurrency.worker.apps import forget
from celery_concurrency.worker.bootstep import ConcurrencyStep
from celery_concurrency.worker.hooks import gated
from celery_concurrency.worker.tags import tags_of

#: Seconds between two looks at a result.
LOOK_SECONDS: Final = 0.02
#: Seconds until a denied task asks again, in the waiting mode retry.
COUNTDOWN_SECONDS: Final = 0.2


class Concurrency:
    """A limiter for one test, with its own key prefix; a context manager.

    Args:
        url: the Redis server's URL.

    Attributes:
        limiter: the limiter itself, with the default configuration: one task per account.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = connect(url)
        self._ends = ExitStack()
        self.limiter = Limiter(self._redis, f"test-{uuid.uuid4().hex}")
        # With an epoch, it admits runs at once. Without, it would first wait for beats.
        self._redis.set(self.limiter.keyspace.keys.epoch, 1)

    def configure(self, **changes: Any) -> None:
        """Change the limits: ``configure(global_max=2, platform_max={"douyin": 1})``.

        Raises:
            InvalidConfig: there is no such field, or it can't have this value.
        """
        self.limiter.config.update(changes)

    @contextmanager
    def running(self, signature: Signature | None = None, **tags: object) -> Iterator[None]:
        """Hold tokens while the block runs, as a running task does.

        Args:
            signature: the task, ``publish.s("u1").set(headers={"platform": "douyin"})``.
            tags: instead of the signature, the task's tags.

        Raises:
            AssertionError: there is no room for it.
            TypeError: this is not the signature of one task, or a tag names no dimension.
        """
        if signature is not None and _is_exempt(signature):
            yield
            return
        known = [*BUILTIN_TAGS, *self.limiter.config.sync().config.dimensions]
        for name in tags:
            if name not in {*known, *OTHER_TAGS}:
                raise TypeError(f"{name!r} is not a tag; use {', '.join(known)}")
        held = tags if signature is None else _tags(signature)
        token = f"running:{uuid.uuid4()}"
        answer = self.limiter.try_acquire(token, held)
        if isinstance(answer, Denied):
            raise AssertionError(f"there is no room to run it: it waits for {answer}")
        try:
            yield
        finally:
            self.limiter.release(token)

    def waits_for(self, signature: Signature) -> str | None:
        """Return the first limit that a task would wait for now; None if it would run.

        Raises:
            TypeError: this is not the signature of one task.
        """
        if _is_exempt(signature):
            return None
        token = f"asking:{uuid.uuid4()}"
        answer = self.limiter.try_acquire(token, _tags(signature))
        if isinstance(answer, Denied):
            return answer.limit
        # It only asked: nothing has begun as far as rates are concerned.
        self.limiter.release(token, began=False)
        return None

    def assert_waits(
        self, what: Signature | AsyncResult, limit: str | None = None, timeout: float = 10
    ) -> None:
        """Make sure that a task waits.

        Args:
            what: a signature: the task would wait if it were sent now; or the result of a
                task that was sent to a worker: it waits within ``timeout``.
            limit: what it waits for, such as ``"account:u1"``; None for any limit.
            timeout: seconds to wait until it does.

        Raises:
            AssertionError: it does not wait, or waits for another limit.
        """
        if isinstance(what, AsyncResult):
            _assert_result_waits(what, limit, timeout)
            return
        found = self.waits_for(what)
        if found is None:
            raise AssertionError(f"{what!r} would run, it is {_counted_in(what)}")
        if limit not in (None, found):
            raise AssertionError(f"{what!r} would wait for {found!r}, not for {limit!r}")

    def assert_runs(self, signature: Signature) -> None:
        """Make sure that a task would run if it were sent now.

        Raises:
            AssertionError: it would wait; the message names the limit.
        """
        found = self.waits_for(signature)
        if found is not None:
            raise AssertionError(f"{signature!r} would wait for {found!r}")

    def gate(self, app: Celery) -> None:
        """Gate an app's tasks by this limiter until the end of the test.

        For workers in this process, such as those of ``celery.contrib.testing.worker``'s
        ``start_worker``. End them within the test.
        """
        settings = {
            "concurrency_redis_url": self._url,
            "concurrency_key_prefix": self.limiter.prefix,
            "concurrency_retry_countdown": COUNTDOWN_SECONDS,
        }
        self._ends.callback(forget, app)
        self._ends.callback(app.conf.update, {name: app.conf.get(name) for name in settings})
        app.conf.update(settings)
        forget(app)
        self._ends.enter_context(gated(app))

    def close(self) -> None:
        """Stop gating, and delete all of its keys."""
        self._ends.close()
        keys = list(self._redis.scan_iter(f"{self.limiter.prefix}:*", count=1000))
        if keys:
            self._redis.delete(*keys)
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextmanager
def gating_off() -> Iterator[None]:
    """Gate no task in this process while the block runs; workers then need no limiter."""
    with (
        patch.object(gate, "is_gated", lambda task: False),
        patch.object(ConcurrencyStep, "enabled", False),
    ):
        yield


def _tags(signature: Signature) -> Mapping[str, object]:
    """Return a task's tags as a worker reads them."""
    task = _task_of(signature)
    task.push_request(
        args=signature.args,
        kwargs=signature.kwargs,
        headers=signature.options.get("headers"),
    )
    try:
        return tags_of(task)
    finally:
        task.pop_request()


def _task_of(signature: Signature) -> Any:
    """Return the task of a signature; raise a TypeError if it is not the signature of one task."""
    if not isinstance(signature, Signature) or signature.subtask_type is not None:
        raise TypeError(f"{signature!r} is not the signature of one task: use publish.s(...)")
    return signature.type


def _is_exempt(signature: Signature) -> bool:
    """Return whether a worker would not gate it, by its app's settings now."""
    task = _task_of(signature)
    return gate.is_exempt(task.name, task.app.conf.get("concurrency_exempt") or ())


def _counted_in(signature: Signature) -> str:
    if _is_exempt(signature):
        return "exempt"
    tags = ", ".join(f"{name}={value}" for name, value in _tags(signature).items())
    return f"counted in 'global' and by its tags: {tags or 'none'}"


def _assert_result_waits(result: AsyncResult, limit: str | None, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        state, info = result.state, result.info
        if state == "RETRY" and isinstance(info, LimitReached):
            reason = str(info)
            if limit is None or re.match(
                rf"(waits for )?{re.escape(limit)} (\(|opens in )", reason
            ):
                return
            # It may still come to wait for that one.
            problem = f"it {reason}, not for {limit!r}"
        else:
            problem = f"its state is {state}"
        if result.ready() or time.monotonic() > deadline:
            raise AssertionError(f"task {result.id} does not wait: {problem}")
        time.sleep(LOOK_SECONDS)
