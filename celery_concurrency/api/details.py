"""Details in Chinese: translates what the lower floors say is wrong or in doubt.

The messages beside them are in ``envelope.py``; most English details come from
``limiter/config/problems.py`` and pydantic.
"""

import re
from typing import Final

#: Each English problem as a whole, and the Chinese one; any other problem stays English.
_CHINESE: Final = [
    (re.compile(english, re.DOTALL), chinese)
    for english, chinese in (
        # Mistyped names
        (r"no configuration lists (.+), and no run uses it", r"配置中没有 \1，也没有任务使用它"),
        (r"there is no such field", "没有这个字段"),
        (r"Field required", "缺少这个字段"),
        (r"(?:paused )?names '(.+)', which is not a limit", r"没有 \1 这样的限制"),
        # Values
        (r"Input should be greater than or equal to (\S+)", r"不能小于 \1"),
        (r"Input should be less than or equal to (\S+)", r"不能大于 \1"),
        (r"Input should be greater than (\S+)", r"必须大于 \1"),
        (r"Input should be less than (\S+)", r"必须小于 \1"),
        (r"Input should be a valid integer.*", "必须是整数"),
        (r"Input should be a valid number.*", "必须是数字"),
        (r"Input should be a valid boolean.*", "必须是 true 或 false"),
        (r"Input should be a valid string", "必须是字符串"),
        (r"Input should be a valid (?:list|tuple)", "必须是列表"),
        (r"Input should be (?:a valid dictionary|an object).*", "必须是 JSON 对象"),
        (r"Input should be ('.+') or ('.+')", r"只能是 \1 或 \2"),
        (r"String should have at most (\d+) characters?", r"最多 \1 个字符"),
        (r"List should have at least (\d+) items? .*", r"至少要有 \1 项"),
        (r"List should have at most (\d+) items? .*", r"最多 \1 项"),
        (r"it looks like (.+), on the command line (.+)", r"格式应为 \1，命令行写作 \2"),
        (r"min, (\d+), is greater than max, (\d+)", r"min 是 \1，不能大于 max（\2）"),
        (r"only one dimension can be fair, not (.+) and (.+)",
         r"只能有一个维度公平分配名额，不能同时是 \1 和 \2"),
        (r"must be more than 0 and at most (\d+)", r"必须大于 0，且不超过 \1"),
        (r"must be one line of at most (\d+) printable characters",
         r"只能是一行，最多 \1 个可显示的字符"),
        (r"can't be null: .*", "不能为 null：null 只用于从映射中移除一项"),
        # Names
        (r"'(.*)' is not a limit(?: because it .*)?: write 'global' or 'platform:douyin'",
         r"\1 不是限制的名称：请写 global，或 platform:douyin 这样的形式"),
        (r"'(.+)' is a wildcard: name one limit", r"\1 是通配：请写出一个具体的限制"),
        (r"'(.+)' is a name that Celery or celery-concurrency uses itself",
         r"\1 是 Celery 或本组件自用的名称，请换一个"),
        (r"the (?:operator's name|name '.*') is empty: .*", "名称不能为空"),
        (r"the (?:operator's name|name '.*') is longer than (\d+) characters: .*",
         r"名称过长，最多 \1 个字符"),
        (r"the (?:operator's name|name '.*') has '(.+)', which can't be printed: .*",
         r"名称中有无法显示的字符 \1"),
        (r"has '(.+)', which can't be printed: remove it", r"含有无法显示的字符 \1，请去掉"),
        # Requests
        (r"this is not JSON: (.+)", r"不是有效的 JSON：\1"),
        (r"the change must be a JSON object of fields to change",
         "请求体必须是要修改的字段组成的 JSON 对象"),
        (r"the configuration is longer than (\d+) bytes of JSON", r"配置的 JSON 超过 \1 字节"),
        (r"the configuration is at version (\d+); read it, then decide again",
         r"配置当前为版本 \1，请重新读取后再决定"),
        (r"there is no version (\d+) of the configuration any more, .*",
         r"没有版本 \1，或已不再保留；可用的版本见修改历史"),
        (r"'(.+)' has no entry in the configuration's adaptive: PUT /config (.+) makes one",
         r"配置的 adaptive 中没有 \1：可用 PUT /config \2 添加"),
        (r"Redis is out of memory: .*",
         "Redis 内存已满：请等任务结束、取消部分等待任务，或调大 maxmemory"),
    )
]  # fmt: skip

_MEANT: Final = re.compile(r"; did you mean (.+?)\?$", re.DOTALL)
_REMEDY: Final = re.compile(
    r": write 'global' or '<dimension>:<name>'( or '<dimension>:\*')? "
    r"with one of the dimensions (.+)$"
)


def in_chinese(problem: str) -> str:
    """Return a problem in Chinese if it is known, else as it is."""
    remedy, meant = _REMEDY.search(problem), None
    plain = problem[: remedy.start()] if remedy else problem
    if meant := _MEANT.search(plain):
        plain = plain[: meant.start()]
    for english, chinese in _CHINESE:
        if found := english.fullmatch(plain):
            return found.expand(chinese) + _asked(meant) + _remedied(remedy)
    return problem


def _asked(meant: re.Match[str] | None) -> str:
    return f"；是否想写 {meant[1]}？" if meant else ""


def _remedied(remedy: re.Match[str] | None) -> str:
    if not remedy:
        return ""
    or_all = "、<维度>:*" if remedy[1] else ""
    return f"（请写 global、<维度>:<名称>{or_all}，维度可以是 {remedy[2]}）"
