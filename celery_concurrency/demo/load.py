"""What the demo sends: publish tasks over five platforms and thirty accounts.

``session.py`` says for how long.
"""

import random
import uuid
from collections import Counter
from typing import Any, Final

PLATFORMS: Final = ("douyin", "xiaohongshu", "kuaishou", "bilibili", "channels")
ACCOUNTS: Final = 6  # of each platform
TASK_SECONDS: Final = (0.2, 0.6)  # from, to

#: A change to the default configuration that makes each kind of limit matter.
LIMITS: Final = {
    "global_max": 6,
    "platform_max": {"douyin": 2, "xiaohongshu": 1, "bilibili": 2},
    "account_max": 1,
}

#: A platform's tasks that are sent and not done: more than can run, and soon done.
MOST_UNFINISHED: Final = 5


class Load:
    """Sends tasks, no faster than they are done.

    Args:
        publish: the task.
    """

    def __init__(self, publish: Any) -> None:
        self._publish = publish
        self.sent: dict[str, dict[str, str]] = {}  # the tags of each task, by its id
        self.unfinished: dict[str, str] = {}  # the platform of each that is not done

    def send(self) -> None:
        """Send a task of a platform that has few unfinished ones, if there is any."""
        counts = Counter(self.unfinished.values())
        free = [platform for platform in PLATFORMS if counts[platform] < MOST_UNFINISHED]
        if not free:
            return
        platform = random.choice(free)  # noqa: S311 - nothing here is secret
        account = f"{platform}-{random.randint(1, ACCOUNTS)}"  # noqa: S311
        seconds = random.uniform(*TASK_SECONDS)  # noqa: S311
        task_id = str(uuid.uuid4())
        tags = {"platform": platform, "account": account, "type": "publish"}
        self._publish.apply_async((seconds,), task_id=task_id, headers=dict(tags))
        self.sent[task_id] = tags
        self.unfinished[task_id] = platform

    def note_end(self, task_id: str) -> None:
        """Take note that a task ran to its end."""
        self.unfinished.pop(task_id, None)

    @property
    def done(self) -> int:
        """How many ran to their end."""
        return len(self.sent) - len(self.unfinished)
