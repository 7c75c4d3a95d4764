"""Details of the API's errors, in the language of its messages."""

from __future__ import annotations

import re

import pytest

BASE = "/api/v1/concurrency"
CONFIG = f"{BASE}/config"

#: What is sent, and what is wrong with it.
MISTAKES = {
    "too low": ("PUT", CONFIG, {"global_max": -1}, "不能小于 0"),
    "too high": ("PUT", CONFIG, {"global_max": 10**7}, "不能大于 1000000"),
    "no such field": ("PUT", CONFIG, {"nothing": 1}, "没有这个字段"),
    "which is meant": ("PUT", CONFIG, {"globalmax": 1}, "没有这个字段；是否想写 global_max？"),
    "no integer": ("PUT", CONFIG, {"global_max": "4"}, "必须是整数"),
    "no bool": ("PUT", CONFIG, {"enabled": 1}, "必须是 true 或 false"),
    "no map": (
        "PUT", CONFIG, {"platform_max": 3},
        '格式应为 {"douyin": 3}，命令行写作 platform_max.douyin=3',
    ),
    "a factor": (
        "PUT", CONFIG, {"adaptive": {"global": {"min": 1, "max": 2, "decrease": 1.0}}},
        "必须小于 1",
    ),
    "over max": (
        "PUT", CONFIG, {"adaptive": {"global": {"min": 3, "max": 2}}},
        "min 是 3，不能大于 max（2）",
    ),
    "missing": ("PUT", CONFIG, {"adaptive": {"global": {"min": 3}}}, "缺少这个字段"),
    "too many": ("PUT", CONFIG, {"rates": {"global": [{"max": 1, "per": 1}] * 5}}, "最多 4 项"),
    "too few": ("PUT", CONFIG, {"rates": {"global": []}}, "至少要有 1 项"),
    "mode": (
        "PUT", CONFIG, {"rates": {"global": [{"max": 1, "per": 1, "mode": "x"}]}},
        "只能是 'enforce' 或 'observe'",
    ),
    "no limit": (
        "PUT", CONFIG, {"paused": ["platfrom:x"]},
        "没有 platfrom:x 这样的限制；是否想写 platform:x？（请写 global、<维度>:<名称>，"
        "维度可以是 account, platform, task_type）",
    ),
    "no rate's limit": (
        "PUT", CONFIG, {"rates": {"x:y": [{"max": 1, "per": 1}]}},
        "没有 x:y 这样的限制（请写 global、<维度>:<名称>、<维度>:*，"
        "维度可以是 account, platform, task_type）",
    ),
    "null": ("PUT", CONFIG, {"enabled": None}, "不能为 null：null 只用于从映射中移除一项"),
    "empty": ("PUT", CONFIG, {"platform_max": {"": 1}}, "名称不能为空"),
    "too long": ("PUT", CONFIG, {"platform_max": {"x" * 201: 1}}, "名称过长，最多 200 个字符"),
    "Celery's": (
        "PUT", CONFIG, {"dimensions": {"retries": {"max": 1}}},
        "retries 是 Celery 或本组件自用的名称，请换一个",
    ),
    "no object": ("PUT", CONFIG, [], "请求体必须是要修改的字段组成的 JSON 对象"),
    "unprintable": ("PUT", CONFIG, {"platform_max": {"a\n": 1}}, r"含有无法显示的字符 \n，请去掉"),
    "no text": ("POST", f"{BASE}/cooldowns", {"limit": 1, "seconds": 1}, "必须是字符串"),
    "too short": ("POST", f"{BASE}/cooldowns", {"limit": "global", "seconds": 0}, "必须大于 0"),
    "no number": ("POST", f"{BASE}/cooldowns", {"limit": "global", "seconds": "1"}, "必须是数字"),
    "reason": (
        "POST", f"{BASE}/cooldowns", {"limit": "global", "seconds": 1, "reason": "x" * 201},
        "最多 200 个字符",
    ),
    "wildcard": (
        "POST", f"{BASE}/cooldowns", {"limit": "platform:*", "seconds": 1},
        "没有 platform:* 这样的限制（请写 global、<维度>:<名称>，"
        "维度可以是 account, platform, task_type）",
    ),
    "no version": (
        "POST", f"{CONFIG}/rollback", {"version": 99},
        "没有版本 99，或已不再保留；可用的版本见修改历史",
    ),
    "not adaptive": (
        "DELETE", f"{BASE}/adaptive?limit=platform:x", None,
        '配置的 adaptive 中没有 platform:x：可用 PUT /config {"adaptive": {"platform:x": '
        '{"min": 1, "max": 10}}} 添加',
    ),
    "query": (
        "GET", f"{BASE}/waiting?limit=x", None,
        "x 不是限制的名称：请写 global，或 platform:douyin 这样的形式",
    ),
    "window": ("GET", f"{BASE}/stats/history?window=9h", None, "只能是 '1h', '6h' 或 '24h'"),
    "count": ("GET", f"{BASE}/waiting?count=x", None, "必须是整数"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "chinese"), MISTAKES.values(), ids=MISTAKES)
def test_a_detail_is_said_in_the_language_of_the_message(client, method, path, body, chinese):
    def details(**headers):
        sent = {} if body is None else {"json": body}
        answer = client.open(path, method=method, headers=headers, **sent)
        return [one["problem"] for one in answer.json["error"]["details"]]

    assert details() == [chinese]
    [english] = details(**{"Accept-Language": "en"})
    assert not re.search("[\u4e00-\u9fff]", english)


def test_a_lost_race_is_said_in_chinese(client):
    refused = client.put(CONFIG, json={"global_max": 1}, headers={"If-Match": '"9"'})
    [detail] = refused.json["error"]["details"]
    assert detail["problem"] == "配置当前为版本 1，请重新读取后再决定"
