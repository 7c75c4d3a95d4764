"""Tags and limits: which limits a run counts in, by its tags.

A *tag* is what the user says of a task (``account=acc123``); a *limit* is a name that Redis
counts under (``account:acc123``). ``limiter/config/schema.py`` says how many each allows.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from celery_concurrency.errors import InvalidTag
from celery_concurrency.scripts.constants import OTHER
from celery_concurrency.text import unprintable

T = TypeVar("T")

GLOBAL = "global"
WILDCARD = "*"
MAX_TAG_LENGTH = 200

#: The tag (a message header) of each of the seed's dimensions.
BUILTIN_TAGS: Mapping[str, str] = {
    "platform": "platform",
    "account": "account",
    "type": "task_type",
}
BUILTIN_DIMENSIONS = frozenset(BUILTIN_TAGS.values())
#: Tags that are called as their dimension is, to the one that the documentation names.
OTHER_TAGS: Mapping[str, str] = {
    dimension: tag for tag, dimension in BUILTIN_TAGS.items() if tag != dimension
}


def tag_value(tag: str, value: object) -> str:
    """Return a tag's value as the text that names its limit.

    Args:
        tag: the tag's name, for the error.
        value: a non-empty text or an integer, ``MAX_TAG_LENGTH`` printable characters
            at most; no bool, which is an accident more often than a name.

    Raises:
        InvalidTag: it is anything else; names the tag and shows the value.
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
    """Return these tags by the names that the documentation uses: ``task_type`` is ``type``.

    Raises:
        InvalidTag: both are there, and differ.
    """
    for other, tag in OTHER_TAGS.items():
        if other in tags:
            value = tags[other]
            if tags.get(tag, value) != value:
                raise InvalidTag(
                    f"tags {tag!r} and {other!r} are the same, and here they are {tags[tag]!r} "
                    f"and {value!r}: leave {other!r} out"
                )
            tags = {**{name: tags[name] for name in tags if name != other}, tag: value}
    return tags


def name_problem(name: object) -> str | None:
    """Return what keeps ``name`` from naming a limit, or None if nothing does."""
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
        tags: tag name to value; names that are no dimension are ignored.
        dimensions: the user's own dimensions, each read from the tag of its name.

    Returns:
        ``("global", "platform:douyin", "account:acc123", ...)``; always with
        ``global``, in the same order for the same tags.

    Raises:
        InvalidTag: a value names no limit, or a tag has two.
    """
    tags = by_tag(tags)
    read = [*BUILTIN_TAGS.items(), *((name, name) for name in sorted(dimensions))]
    return (
        GLOBAL,
        *(f"{dimension}:{tag_value(tag, tags[tag])}" for tag, dimension in read if tag in tags),
    )


def wildcard_of(limit: str) -> str:
    """Return the limit that sets a limit's maximum where nothing else does: ``platform:*``."""
    return f"{limit.partition(':')[0]}:{WILDCARD}"


def split_limit(limit: str) -> tuple[str, str | None]:
    """Return a limit's dimension and name: ``("account", "a:1")`` for ``account:a:1``."""
    dimension, colon, name = limit.partition(":")
    return dimension, name if colon else None


def limit_in(limits: Iterable[str], dimension: str) -> str | None:
    """Return the one of a run's limits that is of a dimension; None if it has none.

    Args:
        limits: at most one of a dimension.
        dimension: the dimension or its tag: ``"type"`` is ``"task_type"``.
    """
    named = BUILTIN_TAGS.get(dimension, dimension)
    return next((limit for limit in limits if split_limit(limit)[0] == named), None)


def other_of(dimension: str) -> str:
    """Return as what those limits of a dimension are counted that have no name in statistics."""
    return OTHER + dimension


def dimension_of(counted: str) -> str:
    """Return the dimension of what is counted: of a limit, or of those counted together."""
    dimension, name = split_limit(counted)
    return dimension.removeprefix(OTHER) if name is None else dimension


def limit_problem(limit: str) -> str | None:
    """Return what keeps ``limit`` from being a limit's name, or None if nothing does."""
    dimension, name = split_limit(limit)
    if limit == GLOBAL:
        return None
    problem = "" if name is None else name_problem(dimension) or name_problem(name)
    if problem is None:
        return None
    why = f", as it {problem}" if problem else ""
    return f"{limit[:MAX_TAG_LENGTH]!r} is no limit{why}: write 'global' or 'platform:douyin'"
