"""Misnamed headers: of which tasks, how often, and which tag is meant.

Workers find them (``worker/unknown_headers.py``) and count here, for usage and metrics to show.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from celery_concurrency.limiter.keyspace import Keyspace

#: How many are kept, the most frequent first, and until when after the last: a day.
MISNAMED_MOST: Final = 100
KEPT_SECONDS: Final = 86_400
#: Characters of a task's name, and of a header's.
NAME_MOST: Final = 200


class Misnamed(NamedTuple):
    """A header of a task's messages that is no tag, and nearly one."""

    task: str
    header: str
    tag: str


class MisnamedHeader(BaseModel):
    """A header that is no tag, and nearly one: it limits nothing.

    Attributes:
        task: whose messages have it.
        header: its name.
        tag: which tag may be meant.
        count: messages that workers received with it; it begins anew after a day without any.
    """

    task: str
    header: str
    tag: str
    count: int


def count_misnamed(keyspace: Keyspace, counts: Mapping[Misnamed, int]) -> None:
    """Count messages with misnamed headers.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    key = keyspace.keys.misnamed
    pipe = keyspace.pipeline()
    for one, count in counts.items():
        pipe.zincrby(key, count, json.dumps([text[:NAME_MOST] for text in one]))
    pipe.zremrangebyrank(key, 0, -MISNAMED_MOST - 1)
    pipe.expire(key, KEPT_SECONDS)
    pipe.execute()


def read_misnamed(keyspace: Keyspace) -> list[MisnamedHeader]:
    """Return what was counted, the most frequent first."""
    found: Any = keyspace.redis.zrevrange(keyspace.keys.misnamed, 0, -1, withscores=True)
    named = [(*json.loads(member), int(count)) for member, count in found]
    return [
        MisnamedHeader(task=task, header=header, tag=tag, count=count)
        for task, header, tag, count in named
    ]
