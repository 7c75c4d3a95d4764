"""What the demo sends: publish tasks over five platforms and a few dozen accounts.

How it is sent and waited for is in ``session.py``.
"""

from __future__ import annotations

import random
import uuid
from collections import deque
from typing import Any, Final

from celery_concurrency.demo.records import Run, Sent, now

PLATFORMS: Final = ("douyin", "xiaohongshu", "kuaishou", "bilibili", "channels")
ACCOUNTS: Final = 6  # of each platform
TASK_SECONDS: Final = (0.2, 0.6)  # from, to

#: A change to the default configuration that makes each kind of limit matter.
LIMITS: Final = {
    "global_max": 6,
    "platform_max": {"douyin": 2, "xiaohongshu": 1, "bilibili": 2},
    "account_max": 1,
}

#: Tasks of a platform that are sent and not done: more than run, few enough to be done soon.
OPEN: Final = 5
#: How long the first tasks are reckoned to take, in seconds, before any is done.
FIRST_GUESS: Final = 2.0
#: How many of the last tasks the next ones are reckoned by, and which share of
#: them in reckoning: the slowest were held up by tasks that will not be sent any more.
REMEMBERED: Final = 50
SHARE: Final = 0.8


class Load:
    """Sends tasks, no faster than they are done.

    Args:
        publish: the task.

    Attributes:
        sent: all that were sent, by their ids.
        done: how many of these have run to their end.
    """

    def __init__(self, publish: Any) -> None:
        self._publish = publish
        self._open: dict[str, set[str]] = {platform: set() for platform in PLATFORMS}
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self.sent: dict[str, Sent] = {}
        self.done = 0

    def send(self) -> None:
        """Send a task of one of the platforms that have few open ones, if there are any."""
        free = [platform for platform, tasks in self._open.items() if len(tasks) < OPEN]
        if not free:
            return
        # Nothing here has to be hard to guess.
        platform = random.choice(free)  # noqa: S311
        account = f"{platform}-{random.randint(1, ACCOUNTS)}"  # noqa: S311
        seconds = random.uniform(*TASK_SECONDS)  # noqa: S311
        task = Sent(
            task_id=str(uuid.uuid4()),
            tags={"platform": platform, "account": account, "type": "publish"},
            at=now(),
        )
        self._publish.apply_async((seconds,), task_id=task.task_id, headers=dict(task.tags))
        self.sent[task.task_id] = task
        self._open[platform].add(task.task_id)

    def note(self, run: Run) -> None:
        """Take note of a run that ended."""
        task = self.sent.get(run.task_id)
        open_tasks = self._open[task.tags["platform"]] if task else set()
        if task and run.end and run.task_id in open_tasks:
            open_tasks.remove(run.task_id)
            self._took.append(run.end - task.at)
            self.done += 1

    @property
    def open(self) -> int:
        """How many were sent and are not done."""
        return len(self.sent) - self.done

    @property
    def time_needed(self) -> float:
        """Seconds in which a task that is sent now will be done, as the last ones took."""
        if not self._took:
            return FIRST_GUESS
        return sorted(self._took)[int(SHARE * len(self._took))]
