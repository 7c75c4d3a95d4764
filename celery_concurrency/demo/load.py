"""What the demo sends, and what its tasks themselves record of their runs.

``report.py`` judges by it.
"""

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from redis import Redis

from celery_concurrency.demo.platform import Refused

#: The platform that turns strict, and its twin: as strict and as loaded, under a fixed limit.
STRICT: Final = "xiaohongshu"
TWIN: Final = "xiaohongshu-fixed"
CEILING: Final = 4  # of each of the two

#: Of each platform, the tasks that are sent and not done: more than can run, and soon done.
PLATFORMS: Final = {"douyin": 3, STRICT: 8, TWIN: 8, "kuaishou": 3, "bilibili": 3}
ACCOUNTS: Final = 8  # of each platform
TASK_SECONDS: Final = (0.2, 0.6)  # from, to

#: A change to the default configuration that makes each kind of limit matter.
LIMITS: Final = {
    "global_max": 10,
    "platform_max": {"douyin": 2, "bilibili": 1, TWIN: CEILING},
    "account_max": 1,
    "adaptive": {
        f"platform:{STRICT}": {"min": 1, "max": CEILING, "decrease": 0.5, "every": 1},
    },
}

#: Where the records are, and how many are read in one command.
KEY: Final = "demo:runs"
BATCH: Final = 1000


class Run(NamedTuple):
    """An execution of a task's body, by time.monotonic: one clock for all of a machine."""

    start: float
    end: float | None  # None while it runs
    refused: bool = False  # the platform did: another run of the task follows

    @property
    def did_it(self) -> bool:
        """Whether it ended, and published."""
        return self.end is not None and not self.refused


@dataclass
class Task:
    """A task that was sent; each time that it is refused, it runs once more."""

    tags: dict[str, str]
    runs: dict[str, Run] = field(default_factory=dict)  # by a name of their own
    cancelled: bool = False  # while it waited, by who looks at the demo


@contextmanager
def recorded(redis: Redis, task_id: str) -> Iterator[None]:
    """Record a run: when the block starts, and again, with its end, when it ends."""
    run = [task_id, uuid.uuid4().hex, time.monotonic()]
    refused = False
    redis.rpush(KEY, json.dumps([*run, None, refused]))
    try:
        yield
    except Refused:
        refused = True
        raise
    finally:
        redis.rpush(KEY, json.dumps([*run, time.monotonic(), refused]))


def record_cancelled(redis: Redis, task_id: str) -> None:
    """Record that a task will not run, as somebody cancelled it."""
    redis.rpush(KEY, json.dumps([task_id]))


class Load:
    """Sends tasks, no faster than they are done.

    Args:
        publish: the Celery task.
        redis: where it records its runs.
    """

    def __init__(self, publish: Any, redis: Redis) -> None:
        self._publish = publish
        self._redis = redis
        self.tasks: dict[str, Task] = {}  # all that were sent, by id
        self.unfinished: dict[str, Task] = {}  # of these, the ones without an ended run

    @property
    def running(self) -> int:
        """How many tasks run."""
        return sum(
            any(run.end is None for run in task.runs.values()) for task in self.unfinished.values()
        )

    def send(self) -> None:
        """Send a task of a platform that has few unfinished ones, if there is any."""
        counts = Counter(task.tags["platform"] for task in self.unfinished.values())
        free = [platform for platform, most in PLATFORMS.items() if counts[platform] < most]
        if not free:
            return
        platform = random.choice(free)  # noqa: S311 - nothing here is secret
        account = f"{platform}-{random.randint(1, ACCOUNTS)}"  # noqa: S311
        seconds = random.uniform(*TASK_SECONDS)  # noqa: S311
        task_id = str(uuid.uuid4())
        tags = {"platform": platform, "account": account, "type": "publish"}
        self._publish.apply_async((platform, account, seconds), task_id=task_id, headers=dict(tags))
        self.tasks[task_id] = self.unfinished[task_id] = Task(tags)

    def read(self) -> None:
        """Read the new records, and remove them from the server."""
        texts = self._redis.lpop(KEY, BATCH) or []
        assert isinstance(texts, list)
        for task_id, *recorded_run in map(json.loads, texts):
            task = self.tasks.get(task_id) or Task({})  # a user may send some by hand
            if recorded_run:
                name, *times = recorded_run
                task.runs[name] = Run(*times)
            else:
                task.cancelled = True
            if task.cancelled or task.runs[name].did_it:
                self.unfinished.pop(task_id, None)
