-- Every key that the scripts use.
--
-- A key is the prefix, one of these names, and for a name that ends with a colon what
-- it is of: key(LEASES), key(TOKEN, token). The prefix is the one key that a script is
-- given, so that a hash tag in it keeps a call in one cluster slot.

local prefix = KEYS[1]
local function key(name, of)
  return prefix .. name .. (of or '')
end

-- Tokens
local SEMAPHORE = ':semaphore:' -- of a limit: token → its expiry
local LEASES = ':leases' -- token → when it is taken back if nobody renews it
local TOKEN = ':token:' -- of a token: its record, and the marks that refuse late calls
local FENCE = ':fence' -- the last fencing number
local EPOCH = ':epoch' -- when the data here began: older runs may live and not be in it
local SWEEP_NEXT = ':sweep:next' -- when the next sweep is due
local SWEEP_GRACE = ':sweep:grace' -- there while no token is taken back

-- Configuration
local CONFIG = ':config' -- the JSON
local FLAT = ':config:flat' -- limit or setting → its value; what scripts read
local CONFIG_VERSION = ':config:version' -- its number
local CONFIG_HISTORY = ':config:history' -- a stream of the changes

-- Statistics
local COUNTERS = ':stats:counters' -- name → total since the beginning
local STATS_HISTORY = ':stats:history' -- a stream of copies of the counters
local ENDED = ':stats:ended' -- records of ended runs, until they are counted
local DURATIONS = ':stats:times' -- histograms of how long runs waited and held
local DURATIONS_FROM = ':stats:times:' -- the same of the interval that begins then

-- Waiting room
local TICKET = ':ticket' -- the last time that was given out in a ticket
local GROUPS = ':groups' -- group → ticket of its first waiter
local GROUP = ':group:' -- of a group: waiter → ticket
local WAITER = ':waiter:' -- of a waiter: its record, a line of facts and its message
local RETRIED = ':retried:' -- of a task: its waiters that have another name than its id
local EXPIRING = ':expiring' -- waiter → when its message expires
local RESERVED = ':reserved:' -- of a group: reserved token → its expiry
local RESERVATIONS = ':reservations' -- the same of all groups
local BEGUN = ':begun:' -- of the run that parked a message: the run that began on it, or 'ended'
local COLLECTING = ':collecting' -- the group that room is collected for, the token, until when
local COLLECTING_CURSOR = ':collecting:cursor' -- the ticket at which the next is looked for
local OUTBOX = ':outbox' -- number of a message → when somebody may send it
local OUTBOX_MESSAGE = ':outbox:' -- of a number: the message
local OUTBOX_NUMBER = ':outbox:number' -- the last number

-- Index (see lib/index.lua)
local OPEN = ':open' -- class → ticket of its first waiter
local READY = ':ready:' -- of a class: own limit → ticket of its bucket's first waiter
local BUCKET = ':bucket:' -- of a class and an own limit: group → ticket of its first waiter
local SHUT = ':shut:' -- of a full limit: class → ticket of its first waiter
local BLOCKED_SHARED = ':blocked:shared' -- shared limit that is shut → when it was looked at
local BLOCKED_OWN = ':blocked:own' -- own limit that is shut → when it was looked at
local FREED = ':freed' -- limits that got room, and are shut
local RECHECK = ':recheck' -- since when all that is blocked has to be looked at
