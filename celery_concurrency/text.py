"""Text from outside: which characters a name may have, which name a mistyped one means, and how
any text is shown in one line.

A name has no line breaks, control characters or lone surrogates; ``limiter/limits.py`` checks
that. Ids of tasks are Celery's, and may be anything. Format characters, which are invisible or
change the direction of writing, come along when a name is copied from a spreadsheet or a page: a
name may have them, but they are shown escaped.
"""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final
from unicodedata import category

#: Control characters, lone surrogates, line and paragraph ends, by their Unicode categories.
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: What is escaped: those, and format characters.
_HIDDEN: Final = _REFUSED | {"Cf"}
#: Words of some scripts, and emoji, are written with these.
_JOINERS: Final = "\u200c\u200d"

#: How similar two names must be, from 0 to 1, for one to be the other mistyped.
_CLOSE: Final = 0.75
#: How many names a name is compared with.
MAX_COMPARED: Final = 1_000


def unprintable(text: str) -> str | None:
    """Return the first character of a text that names may not have, escaped; None if none."""
    if text.isprintable():  # of a name nearly always, and far quicker than each of its characters
        return None
    return next((_escaped(char) for char in text if category(char) in _REFUSED), None)


def printable(value: object) -> str:
    """Return a text in one line, with unprintable characters escaped: ``\\n``, ``\\x1b``."""
    text = str(value)
    return text if text.isprintable() else "".join(map(_shown, text))


def json_line(value: object, indent: int | None = None) -> str:
    """Return printable JSON with Chinese unescaped, on several lines only if it is indented."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.replace("\n", "").isprintable():
        return text
    # Texts in JSON have no line breaks: those are from the indentation.
    return "".join(
        char if _is_shown(char) or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return which of these names a mistyped name means; None if none is close.

    Capitals don't matter. Digits do: ``acc12`` is not a mistyped ``acc13``.

    Args:
        name: a name that is not among ``names``.
        names: the known names; ``MAX_COMPARED`` of them at most are compared.
    """
    same_digits = (one for one in islice(names, MAX_COMPARED) if _digits(one) == _digits(name))
    folded = {one.casefold(): one for one in same_digits}
    found = get_close_matches(name.casefold(), folded, n=1, cutoff=_CLOSE)
    return folded[found[0]] if found else None


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _shown(char: str) -> str:
    return char if _is_shown(char) else _escaped(char)


def _is_shown(char: str) -> bool:
    return category(char) not in _HIDDEN or char in _JOINERS


def _escaped(char: str) -> str:
    return repr(char)[1:-1]
