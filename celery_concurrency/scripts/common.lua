-- What the verbs share; each of them includes it.
--
-- Every script is given one key, the prefix, and builds all others from it, so
-- that a hash tag in the prefix keeps a call in one cluster slot.
-- Every time is the server's, in Unix seconds.

local prefix = KEYS[1]
local LEASES = prefix .. ':leases'
local COUNTERS = prefix .. ':stats:counters'
local FLAT = prefix .. ':config:flat'
local GROUPS = prefix .. ':groups'
local FREED = prefix .. ':freed'
local COLLECTING = prefix .. ':collecting'
local OUTBOX = prefix .. ':outbox'
-- When the data here began: runs that are older than it may live and not be in it.
local EPOCH = prefix .. ':epoch'

-- The milliseconds of some 270 years: a place in the order of those who wait is a rank
-- times this, and the time at which one asked.
local RANK = 8796093022208

-- No lease that somebody renews ends sooner, whatever `timeout` says: of beats that come
-- once a second, some may be late.
local SHORTEST_LEASE = 5

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function token_key(token)
  return prefix .. ':token:' .. token
end

local function semaphore_key(limit)
  return prefix .. ':semaphore:' .. limit
end

local function group_key(group)
  return prefix .. ':group:' .. group
end

-- Where the run that began on a parked message is kept, to know a second copy of it.
local function begun_key(parked)
  return prefix .. ':begun:' .. parked
end

-- Whether a limit is one that many groups of waiters share and that has counters: there are
-- few of them, as of platforms and task types. `global`, which all share, is none of these.
local function is_shared(limit)
  return string.find(limit, 'platform:', 1, true) == 1
    or string.find(limit, 'task_type:', 1, true) == 1
end

-- Where those are filed who wait for a limit (see index).
local function shut_key(limit)
  return prefix .. ':shut:' .. limit
end

-- Note that a limit has room again, if anything is filed as waiting for it.
local function set_free(limit)
  if redis.call('EXISTS', shut_key(limit)) == 1 then
    redis.call('SADD', FREED, limit)
  end
end
