"""Tags and limits: which limits a run counts in, by its tags.

A *tag* is what the user says of a task (``account=acc123``). A *limit* is the name under which
Redis counts (``account:acc123``). ``limiter/config/schema.py`` says how many each allows.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

from celery_concurrency.errors import InvalidTag
from celery_concurrency.scripts.constants import OTHER, SHARED_DIMENSIONS
from celery_concurrency.text import unprintable

T = TypeVar("T")

GLOBAL = "global"
WILDCARD = "*"
MAX_TAG_LENGTH = 200

#: The tag (a message header) of each built-in dimension.
BUILTIN_TAGS: Mapping[str, str] = {
    "platform": "platform",
    "account": "account",
    "type": "task_type",
}
BUILTIN_DIMENSIONS = frozenset(BUILTIN_TAGS.values())
#: Tags with the name of their dimension, and the tag that the documentation uses.
OTHER_TAGS: Mapping[str, str] = {
    dimension: tag for tag, dimension in BUILTIN_TAGS.items() if tag != dimension
}


def tag_value(tag: str, value: object) -> str:
    """Return a tag's value as the text that names its limit.

    Args:
        tag: the tag's name, for the error.
        value: a non-empty text or an integer, ``MAX_TAG_LENGTH`` printable characters
            at most; not a bool, which is more often an accident than a name.

    Raises:
        InvalidTag: it is anything else; the message names the tag and shows the value.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    problem = name_problem(text)
    if problem:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise InvalidTag(
            f"tag {tag!r} {problem}, it is {shown}: give it a non-empty text or an "
            f"integer of at most {MAX_TAG_LENGTH} printable characters, or leave it out"
        )
    assert isinstance(text, str)
    return text


def by_tag(tags: Mapping[str, T]) -> Mapping[str, T]:
    """Return these tags under the names that the documentation uses: ``type``, not ``task_type``.

    Raises:
        InvalidTag: both are there and differ.
    """
    for other, tag in OTHER_TAGS.items():
        if other in tags:
            value = tags[other]
            if tags.get(tag, value) != value:
                raise InvalidTag(
                    f"tags {tag!r} and {other!r} mean the same, but here they are {tags[tag]!r} "
                    f"and {value!r}: leave {other!r} out"
                )
            tags = {**{name: tags[name] for name in tags if name != other}, tag: value}
    return tags


def name_problem(name: object) -> str | None:
    """Return why ``name`` can't name a limit, or None if it can."""
    if not isinstance(name, str):
        return "is neither text nor an integer"
    if not name:
        return "is empty"
    if len(name) > MAX_TAG_LENGTH:
        return f"is longer than {MAX_TAG_LENGTH} characters"
    char = unprintable(name)
    if char:
        return f"has '{char}', which can't be printed"
    return None


def limits_of(tags: Mapping[str, object], dimensions: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the limits that a run with these tags counts in.

    Args:
        tags: tag name to value; names that are not dimensions are ignored.
        dimensions: the user's own dimensions, each read from the tag of the same name.

    Returns:
        ``("global", "platform:douyin", "account:acc123", ...)``; always with
        ``global``, in the same order for the same tags.

    Raises:
        InvalidTag: a value can't name a limit, or a tag has two values.
    """
    tags = by_tag(tags)
    limits = [GLOBAL]
    for tag, dimension in (*BUILTIN_TAGS.items(), *((name, name) for name in sorted(dimensions))):
        if tag in tags:
            value = tags[tag]
            # Not True for 1, and what can't be hashed has its own error.
            limit = _known_limit if type(value) is str else _limit
            limits.append(limit(dimension, tag, value))
    return tuple(limits)


def _limit(dimension: str, tag: str, value: object) -> str:
    return f"{dimension}:{tag_value(tag, value)}"


#: The same few names come again and again.
_known_limit = lru_cache(maxsize=4096)(_limit)


def wildcard_of(limit: str) -> str:
    """Return the wildcard, which sets a limit's maximum if nothing else does: ``platform:*``."""
    return f"{limit.partition(':')[0]}:{WILDCARD}"


def own_limits(limits: Iterable[str]) -> tuple[str, ...]:
    """Return which of a run's limits it does not share with other kinds of work.

    Those are its account and its own dimensions; of a run without them, all limits.
    """
    limits = tuple(limits)
    shared = (GLOBAL, *SHARED_DIMENSIONS)
    return tuple(limit for limit in limits if split_limit(limit)[0] not in shared) or limits


def split_limit(limit: str) -> tuple[str, str | None]:
    """Return a limit's dimension and name: ``("account", "a:1")`` for ``account:a:1``."""
    dimension, colon, name = limit.partition(":")
    return dimension, name if colon else None


def limit_in(limits: Iterable[str], dimension: str) -> str | None:
    """Return a run's limit in a dimension; None if it has none.

    Args:
        limits: the run's limits, at most one per dimension.
        dimension: the dimension or its tag: ``"type"`` is ``"task_type"``.
    """
    named = BUILTIN_TAGS.get(dimension, dimension)
    return next((limit for limit in limits if split_limit(limit)[0] == named), None)


def other_of(dimension: str) -> str:
    """Return the name under which statistics count a dimension's unnamed limits together."""
    return OTHER + dimension


def dimension_of(counted: str) -> str:
    """Return the dimension of a limit, or of the limits that are counted together."""
    dimension, name = split_limit(counted)
    return dimension.removeprefix(OTHER) if name is None else dimension


def limit_problem(limit: str) -> str | None:
    """Return why ``limit`` can't be a limit's name, or None if it can."""
    dimension, name = split_limit(limit)
    if limit == GLOBAL:
        return None
    problem = "" if name is None else name_problem(dimension) or name_problem(name)
    if problem is None:
        return None
    why = f" because it {problem}" if problem else ""
    return f"{limit[:MAX_TAG_LENGTH]!r} is not a limit{why}: write 'global' or 'platform:douyin'"
