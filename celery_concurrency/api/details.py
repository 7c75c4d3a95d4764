"""Details: what exactly is wrong or in doubt, in the language that the client prefers.

The messages that they go with are in ``envelope.py``.
"""

from collections.abc import Iterable

from celery_concurrency.api.envelope import preferred_language
from celery_concurrency.limiter.mistyped import Doubt
from celery_concurrency.text import printable


def warnings_of(doubts: Iterable[Doubt]) -> list[dict[str, str]]:
    """Return what an answer says of limits that may be mistyped."""
    tell = _in_chinese if preferred_language() == "zh" else str
    return [{"field": printable(one.field), "problem": tell(one)} for one in doubts]


def _in_chinese(doubt: Doubt) -> str:
    meant = f"；是否想写 {printable(doubt.meant)}？" if doubt.meant else ""
    return f"配置中没有 {printable(doubt.limit)}，也没有任务使用它{meant}"
