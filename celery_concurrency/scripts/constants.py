"""What Lua and Python must agree on. A script names what it needs: ``-- constants RANK, PAUSED``.

How that line becomes Lua is in ``scripts/__init__.py``; the names of keys are in ``lib/keys.lua``.
"""

from typing import Final

#: A ticket is a waiter's rank times this, plus the Unix milliseconds at which it asked: 43
#: bits last until 2248, and rank and time together fit a double exactly.
RANK: Final = 2**43

#: Seconds. No lease that somebody renews is shorter, whatever ``timeout`` says: of beats
#: that come once a second, some may be late.
SHORTEST_LEASE: Final = 5.0

#: A configured limit that admits nobody for now.
PAUSED: Final = -1

#: The highest weight of a run: how many places it may take in a limit.
WEIGHT_MOST: Final = 100

#: The dimensions that many groups of waiters share, and that have counters: few names each.
SHARED_DIMENSIONS: Final = ("platform", "task_type")

#: How many limits are counted by name: so many at once that the configuration does not name,
#: and twice as many with those that it does. The rest of a dimension is counted together.
NAMED_MOST: Final = 500
#: How that entry begins: ``other/platform``. No limit's name is without a colon but "global".
OTHER: Final = "other/"
#: What is counted over all runs, as ``acquired:total``; and by limit too.
TOTALS: Final = (
    *("acquired", "denied", "released", "expired", "reclaimed"),
    *("lost", "parked", "handed_over", "lapsed", "cancelled", "refused", "skipped", "replaced"),
    *("crowded", "overdue"),
)
BY_LIMIT: Final = ("acquired", "denied", "refused", "skipped", "crowded", "overdue")

#: How the name of a token ends that is reserved for a group.
RESERVED_SUFFIX: Final = ":reserved"
#: And of one that collects room for a waiter that was passed over for long.
COLLECTING_SUFFIX: Final = ":collecting"

#: How many messages a worker looks at that come next in a queue, when it parks one.
LOOK_AHEAD: Final = 10

#: How every parked message begins: more headers can be put in behind it.
MESSAGE_START: Final = '{"headers": {'
#: The header of a message that was parked: where it waited.
PARKED: Final = "concurrency_parked"
#: The header of a message that was redelivered before it was sent on, which makes it a new one.
REDELIVERED: Final = "concurrency_redelivered"
#: The header of a message that a worker is to discard.
DISCARD: Final = "concurrency_discard"
#: The header of a message that may not wait, or no longer: why, as ``acquire.lua`` replies it.
GIVEN_UP: Final = "concurrency_given_up"
