"""Progress: how far each run has got, in memory that the main process shares with its children.

A killed child can't report anything, and Redis may be away as well. ``gate.py`` notes which
stage a run has reached. ``rescue.py`` reads that, and takes a run's message from a child that is
about to be killed. A pool that spawns its children shares no memory.
"""

import mmap
import zlib
from enum import IntEnum
from typing import Final

#: Each run has an entry, found by the random end of its token. In the rare case that two runs
#: share an entry, the stage of the earlier one is unknown.
_ENTRIES: Final = 1 << 16
_NAME_BYTES: Final = 8
_ENTRY_BYTES: Final = _NAME_BYTES + 1

_table: Final = mmap.mmap(-1, _ENTRIES * _ENTRY_BYTES)


class Stage(IntEnum):
    """How far a run has got since it asked for tokens."""

    ASKING = 1
    """It asks or was denied: its body has not begun, and its message is not put anywhere yet."""
    PLACED = 2
    """Its message was parked or sent on."""
    BEGUN = 3
    """Its body may have begun."""
    TAKEN = 4
    """Its process is about to be killed, and the main process puts its message back."""


def note(token: str, stage: Stage) -> None:
    """Note how far a run has got; it takes less than a microsecond."""
    name, start = _entry_of(token)
    _table[start : start + _ENTRY_BYTES] = name + bytes([stage])


def stage_of(token: str) -> Stage | None:
    """Return how far a run has got; None if that is unknown or it has not asked."""
    name, start = _entry_of(token)
    entry = _table[start : start + _ENTRY_BYTES]
    # If a child is killed during its first note, the stage is 0.
    known = entry[:_NAME_BYTES] == name and entry[_NAME_BYTES]
    return Stage(known) if known else None


def _entry_of(token: str) -> tuple[bytes, int]:
    """Return a run's name in its entry, and the entry's offset."""
    name = token[-_NAME_BYTES:].encode()[-_NAME_BYTES:].rjust(_NAME_BYTES)
    return name, zlib.crc32(name) % _ENTRIES * _ENTRY_BYTES
