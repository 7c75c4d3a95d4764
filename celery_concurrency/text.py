"""Text from outside: what a name may consist of, which name is meant by a mistyped one, and how
any text is shown in one line.

A name has no line ends, control characters or lone surrogates; ``limiter/limits.py`` holds names
to that. Ids of tasks are Celery's, and may be anything. Format characters, which nobody sees
or which turn the direction of writing, come along when a name is copied from a spreadsheet or a
page: a name may have them, and what is shown has them escaped.
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

#: How much alike two names are, from 0 to 1, of which one may be the other mistyped.
_CLOSE: Final = 0.75
#: Names that one is compared with.
MAX_COMPARED: Final = 1_000


def unprintable(text: str) -> str | None:
    """Return a text's first character that no name may have, escaped; None if there is none."""
    return next((_escaped(char) for char in text if category(char) in _REFUSED), None)


def printable(value: object) -> str:
    """Return a text in one line, in which what can't be printed is escaped: ``\\n``, ``\\x1b``."""
    text = str(value)
    return text if text.isprintable() else "".join(map(_shown, text))


def json_line(value: object, indent: int | None = None) -> str:
    """Return JSON that can be printed, with Chinese as it is; in lines only if it is indented."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.replace("\n", "").isprintable():
        return text
    # No text in JSON has a line end: those are of the indentation.
    return "".join(
        char if _is_shown(char) or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return which of these names is meant by one that was mistyped; None where none is close.

    Capitals don't count. Digits do: ``acc12`` is no mistyped ``acc13``.

    Args:
        name: none of ``names``.
        names: no more than ``MAX_COMPARED`` are looked at.
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
