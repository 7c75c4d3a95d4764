"""Namespaces: queues whose tasks have their limits in a Redis, or under a prefix, of their own.

The setting ``concurrency_namespaces`` names them. A process serves one: a worker that of its
queues, others the one that they are told. ``apps.py`` keeps which, ``settings.py`` reads them, and
``foreign_queues.py`` refuses messages of other namespaces.
"""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Self

from celery.utils.nodenames import worker_direct
from kombu.common import Broadcast
from pydantic import BaseModel, ConfigDict, Field, model_validator

from celery_concurrency.errors import ImproperlyConfigured

#: The namespace of all queues that no other one has.
DEFAULT: Final = "default"
#: The environment variable that names the namespace of a process, if nothing else does.
VARIABLE: Final = "CONCURRENCY_NAMESPACE"

_Text = Annotated[str, Field(strict=True, min_length=1)]


class Namespace(BaseModel):
    """One entry of the setting.

    Attributes:
        queues: globs of the queues' names.
        redis_url, key_prefix: as the settings of these names, which they replace.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queues: Annotated[tuple[_Text, ...], Field(min_length=1)]
    redis_url: _Text | None = None
    key_prefix: _Text | None = None

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.redis_url is None and self.key_prefix is None:
            raise ValueError("it needs a redis_url or a key_prefix, to be apart from the others")
        return self


#: What a namespace may be called: it is typed on the command line.
Name = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=200)]
Namespaces = dict[Name, Namespace]


def check_apart(namespaces: Mapping[str, Namespace], default: Namespace) -> None:
    """Refuse namespaces that can't be told apart.

    Args:
        default: that of all other queues.

    Raises:
        ImproperlyConfigured: names them.
    """
    if DEFAULT in namespaces:
        raise ImproperlyConfigured(
            f"concurrency_namespaces can't have {DEFAULT!r}: all queues that are in no other one "
            "are in that; its Redis is concurrency_redis_url"
        )
    places: dict[tuple[str | None, str | None], str] = {}
    for name, one in {DEFAULT: default, **namespaces}.items():
        place = (one.redis_url or default.redis_url, one.key_prefix or default.key_prefix)
        other = places.setdefault(place, name)
        if other != name:
            raise ImproperlyConfigured(
                f"the namespaces {other!r} and {name!r} have the same Redis and key_prefix: give "
                "one of them another, or make them one"
            )


def chosen(namespaces: Mapping[str, Namespace], name: str | None) -> str:
    """Return the name of a process's namespace.

    Args:
        name: what it was told; None for what the environment says.

    Raises:
        ImproperlyConfigured: there is none of that name, or it has to be told which.
    """
    known = (*namespaces, DEFAULT)
    if name is None:
        name = os.environ.get(VARIABLE) if namespaces else DEFAULT
        if not name:
            raise ImproperlyConfigured(
                "this app has several namespaces, so say which one: --namespace NAME on the "
                f"command line, namespace=NAME in Python, or {VARIABLE} in the environment; "
                f"NAME is one of {', '.join(known)}"
            )
    if name not in known:
        close = get_close_matches(name, known, n=1) or known
        raise ImproperlyConfigured(
            f"concurrency_namespaces has no {name!r}: use {', '.join(close)}"
        )
    return name


def consumed_by(worker: Any, namespaces: Mapping[str, Namespace]) -> str:
    """Return the namespace of a worker's queues.

    Args:
        worker: Celery's ``WorkController``.

    Raises:
        ImproperlyConfigured: they are of several, or one of them is.
    """
    queues = worker.app.amqp.queues
    found: dict[str, str] = {}
    for name in queues.consume_from:
        if not is_of_any(worker.app, queues[name], worker.hostname):
            found.setdefault(namespace_of(name, namespaces), name)
    if len(found) > 1:
        listed = ", ".join(f"{queue!r} ({name})" for name, queue in found.items())
        raise ImproperlyConfigured(
            f"this worker's queues are of several namespaces: {listed}; their limits are in "
            "different places, so start a worker for each, with -Q and its queues"
        )
    return next(iter(found), DEFAULT)


def namespace_of(queue: str, namespaces: Mapping[str, Namespace]) -> str:
    """Return the namespace of a queue.

    Raises:
        ImproperlyConfigured: it is in several.
    """
    found = [
        name
        for name, one in namespaces.items()
        if any(fnmatchcase(queue, glob) for glob in one.queues)
    ]
    if len(found) > 1:
        raise ImproperlyConfigured(
            f"the queue {queue!r} is in several of concurrency_namespaces: "
            f"{', '.join(found)}; narrow their queues"
        )
    return found[0] if found else DEFAULT


def is_of_any(app: Any, queue: Any, hostname: str) -> bool:
    """Return whether a queue goes with any namespace: a broadcast's, or a worker's very own."""
    if isinstance(queue, Broadcast):
        return True
    return bool(app.conf.worker_direct and queue.name == worker_direct(hostname).name)
