"""The envelope of every answer, and its messages in Chinese and English.

``errors.py`` says which error gets which answer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Response, request

from celery_concurrency.api.details import in_chinese

#: The first is the default.
LANGUAGES: Final = ("zh", "en")

MESSAGES: Final[Mapping[str, tuple[str, str]]] = {
    "updated": (
        "并发配置更新成功，已立即生效",
        "The concurrency configuration was updated and is in force",
    ),
    "reset": (
        "并发配置已重置为默认值，已立即生效",
        "The concurrency configuration was reset to the defaults and is in force",
    ),
    "released": ("令牌已释放", "The token was released"),
    "cancelled": ("已取消等待中的任务", "The waiting tasks were cancelled"),
    "cooled_down": (
        "已进入冷却，期间不再放行任务；正在运行的不受影响",
        "The limit cools down and admits no task; running tasks go on",
    ),
    "cool_down_lifted": ("冷却已解除，恢复放行", "The cool-down was lifted; tasks go on"),
    "adaptive_reset": (
        "自适应上限已恢复到最大值，已立即生效",
        "The adaptive limit is back at its maximum",
    ),
    "adaptive_at_max": (
        "自适应上限本来就在最大值，没有变动",
        "The adaptive limit was already at its maximum; nothing moved",
    ),
    "rolled_back": (
        "并发配置已回滚，已立即生效",
        "The earlier concurrency configuration is in force again",
    ),
    "same_version": (
        "该版本与当前配置相同，没有变化",
        "That version is already in force: nothing was changed",
    ),
    "invalid_json": ("请求体不是有效的 JSON", "The body is not valid JSON"),
    "invalid_config": (
        "并发配置无效，未做任何修改",
        "The configuration is not valid; nothing was changed",
    ),
    "invalid_cooldown": (
        "冷却设置无效，未做任何修改",
        "The cool-down is not valid; nothing was changed",
    ),
    "invalid_query": ("查询参数无效", "A parameter of the query is not valid"),
    "invalid_body": ("请求体无效", "The body lacks a field, or has a wrong value"),
    "invalid_operator": (
        "操作人名称无效，请使用不超过 200 个可显示的字符",
        "The operator's name is not valid: it may have up to 200 printable characters",
    ),
    "unprintable": (
        "名称中有无法显示的字符（换行符、控制字符等），请去掉后重试",
        "A name has characters that can't be printed, such as line breaks: remove them",
    ),
    "bad_request": ("请求无效", "The request is not valid"),
    "unauthorized": (
        "请提供访问令牌：Authorization: Bearer <token>",
        "Send a token: Authorization: Bearer <token>",
    ),
    "read_only": ("此访问令牌只能查看，不能修改", "This token may only read"),
    "cross_site": ("拒绝来自其他网站的修改请求", "Changes from other sites' pages are refused"),
    "foreign_host": (
        "请使用 localhost 或 127.0.0.1 访问",
        "Use the name localhost or 127.0.0.1",
    ),
    "forbidden": ("没有权限", "You are not allowed to do this"),
    "not_found": ("没有这个地址", "There is nothing at this address"),
    "method_not_allowed": ("不支持该请求方法", "This address does not support this method"),
    "not_held": (
        "没有任务持有这个令牌，可能已释放或已收回",
        "No run holds this token (any more)",
    ),
    "ambiguous_id": (
        "有多个 ID 以此开头，请多输入几位",
        "Several ids begin like this: give more characters",
    ),
    "not_waiting": ("这个任务没有在等待", "This task does not wait (any more)"),
    "not_cooling": ("这个限制没有在冷却", "This limit does not cool down (any more)"),
    "not_adaptive": (
        "这个限制没有自适应配置",
        "This limit is not adaptive: the configuration has no such entry for it",
    ),
    "unknown_version": (
        "没有这个配置版本，或已不再保留",
        "There is no such version of the configuration, or it is no longer kept",
    ),
    "precondition_failed": (
        "配置已被他人修改，未做任何修改；请重新读取后再试",
        "The configuration was changed after you read it; your change was not made. Read it again",
    ),
    "conflict": (
        "配置正被他人修改，请重试",
        "Somebody else changed the configuration at the same moment; try again",
    ),
    "too_large": ("请求体过大，上限 1 MiB", "The body is too large; 1 MiB at most"),
    "unsupported_media_type": (
        "请使用 Content-Type: application/json",
        "Send it with Content-Type: application/json",
    ),
    "unavailable": ("Redis 不可用，请稍后重试", "Redis can't be reached; try again later"),
    "out_of_memory": (
        "Redis 内存已满：可以查看、取消和释放，但不再放行任务",
        "Redis is out of memory: you can look, cancel and release, but no task is admitted",
    ),
    "extra_missing": (
        "未安装所需的可选依赖",
        "This needs an extra that is not installed",
    ),
    "internal": ("内部错误，详见日志", "Internal error; see the log"),
}  # fmt: skip


def success(
    data: Any, message: str | None = None, warnings: Sequence[Mapping[str, str]] = ()
) -> Response:
    """Return a success: ``{"success": true, "data": ..., "message": ...}``.

    Args:
        data: what was asked for.
        message: a key of ``MESSAGES``; None for no message.
        warnings: probable mistakes, in the form of an error's details; if there are none, the
            envelope has no such field.
    """
    body: dict[str, Any] = {"success": True, "data": data}
    if message:
        body["message"] = text(message)
    if warnings:
        body["warnings"] = _details(warnings)
    return json_response(body)


def failure(
    status: int,
    code: str,
    details: Sequence[Any] | None = None,
    **headers: str,
) -> Response:
    """Return an error: ``{"success": false, "error": {code, message, details}, ...}``.

    Args:
        status: the HTTP status.
        code: a key of ``MESSAGES``; stable, for programs.
        details: what exactly is wrong, in English; translated if the request prefers Chinese.
        headers: more headers of the answer.
    """
    message = text(code)
    body = {
        "success": False,
        "message": message,
        "error": {"code": code, "message": message, "details": _details(details or ())},
    }
    response = json_response(body)
    response.status_code = status
    response.headers.update(headers)
    return response


def _details(details: Sequence[Any]) -> list[dict[str, str]]:
    say = in_chinese if preferred_language() == "zh" else str
    return [{"field": one["field"], "problem": say(one["problem"])} for one in details]


def text(key: str) -> str:
    """Return a message in the language that the request prefers."""
    return MESSAGES[key][LANGUAGES.index(preferred_language())]


def preferred_language() -> str:
    """Return which of ``LANGUAGES`` the request prefers."""
    # Not best_match(): it looks for whole tags first, so "zh-TW, en;q=0.5" would give English.
    for tag, quality in request.accept_languages:
        language = tag.lower().partition("-")[0]
        if quality > 0 and language in LANGUAGES:
            return language
    return LANGUAGES[0]


def json_response(body: Mapping[str, Any]) -> Response:
    """Return this JSON object as an answer, with its fields in order and Chinese unescaped."""
    response = Response(json.dumps(body, ensure_ascii=False) + "\n", mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept-Language"
    return response
