"""The tags of a task, from its declaration and from the headers of its message.

``limiter/limits.py`` turns them into limits.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery_concurrency.errors import ImproperlyConfigured, InvalidTag
from celery_concurrency.limiter.limits import by_tag


def tags_of(task: Any) -> dict[str, object]:
    """Return the tags of a task's current run: ``find_tags`` of its request."""
    request = task.request
    return find_tags(task, request.headers or {}, request.args or (), request.kwargs or {})


def find_tags(
    task: Any, headers: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, object]:
    """Return the tags of a run; headers win.

    Args:
        task: a Celery task. Its ``concurrency`` maps each tag to a value, or to a callable that
            gets the task's arguments by name, however they were passed.
        headers: the headers of the run's message.
        args, kwargs: the task's arguments.

    Returns:
        every header of the message, and the declared tags that no header names; ``task_type``
        is returned as ``type``.

    Raises:
        ImproperlyConfigured: ``concurrency`` is not a mapping.
        InvalidTag: a callable raised an error, or ``type`` and ``task_type`` differ.
        TypeError: the task's arguments don't fit its function.
    """
    headers = by_tag(headers)
    declared = getattr(task, "concurrency", None)
    if not declared:
        return dict(headers)
    if not isinstance(declared, Mapping):
        raise ImproperlyConfigured(
            f"concurrency of task {task.name} is {declared!r}: give it a mapping of tags, "
            'such as {"platform": "douyin", "account": lambda user_id: user_id}'
        )
    tags = {tag: value for tag, value in by_tag(declared).items() if tag not in headers}
    if any(callable(value) for value in tags.values()):
        arguments = _arguments(task, args, kwargs)
        tags = {
            tag: _call(tag, value, arguments) if callable(value) else value
            for tag, value in tags.items()
        }
    return {**tags, **headers}


def _arguments(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the run by name, including those in ``**kwargs``."""
    signature = inspect.signature(task.run)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    return arguments


def _call(tag: str, function: Callable[..., object], arguments: dict[str, Any]) -> object:
    """Call the function with the arguments it takes; with all if it has ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        names = None  # some built-in functions don't say: "{user_id}-{kind}".format
    else:
        names = {parameter.name for parameter in parameters}
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            names = None
    given = {name: arguments[name] for name in arguments if names is None or name in names}
    try:
        return function(**given)
    except Exception as exc:
        raise InvalidTag(f"tag {tag!r} can't be worked out from the arguments: {exc!r}") from exc
