"""Actions: what operators did to tokens and waiting tasks, and who they were.

Changes of the configuration are in their own history, ``config/history.py``.
"""

from contextlib import suppress
from typing import Any, Final, Literal

from pydantic import BaseModel

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.text import printable

#: How many are kept, and how many of them are listed.
KEPT: Final = 500
LISTED: Final = 100
#: Characters of the subject that are kept: an id may be any text.
MAX_SUBJECT: Final = 300

What = Literal["released", "cancelled"]


class Action(BaseModel):
    """What somebody did.

    Attributes:
        at: when, in Unix seconds of the Redis server.
        operator, source: who, and how (``config.history.Author``).
        action: ``released`` a token, or ``cancelled`` waiting tasks.
        subject: the token, the task's id, or the limit all of whose tasks were cancelled.
        count: how many tokens or tasks.
    """

    at: float
    operator: str | None
    source: str
    action: What
    subject: str
    count: int


def note_action(keyspace: Keyspace, by: Author, action: What, subject: str, count: int = 1) -> None:
    """Record what was just done; if Redis takes no writes, only the log has it."""
    entry: dict[Any, Any] = {
        "source": by.source,
        "operator": by.operator or "",
        "action": action,
        "subject": printable(subject)[:MAX_SUBJECT],
        "count": count,
    }
    with suppress(LimiterUnavailable):
        keyspace.redis.xadd(keyspace.keys.actions, entry, maxlen=KEPT, approximate=False)


def read_actions(keyspace: Keyspace) -> list[Action]:
    """Return the last ``LISTED``, the newest first."""
    entries: Any = keyspace.redis.xrevrange(keyspace.keys.actions, count=LISTED)
    return [_action(entry_id, fields) for entry_id, fields in entries]


def _action(entry_id: bytes, fields: dict[bytes, bytes]) -> Action:
    texts = {name.decode(): text.decode() for name, text in fields.items()}
    at = int(entry_id.partition(b"-")[0]) / 1000
    return Action.model_validate({**texts, "operator": texts["operator"] or None, "at": at})
