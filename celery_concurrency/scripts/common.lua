-- What the verbs share; each of them includes it.
--
-- Every script is given one key, the prefix, and builds all others from it, so
-- that a hash tag in the prefix keeps a call in one cluster slot.
-- Every time is the server's, in Unix seconds.

local prefix = KEYS[1]
local LEASES = prefix .. ':leases'
local COUNTERS = prefix .. ':stats:counters'
local CONFIG = prefix .. ':config'
local FLAT = prefix .. ':config:flat'
local GROUPS = prefix .. ':groups'
local FREED = prefix .. ':freed'
local COLLECTING = prefix .. ':collecting'
local OUTBOX = prefix .. ':outbox'
-- What is kept of runs that have ended, until somebody counts it (see tally); no more
-- than so many, where nobody does.
local ENDED, ENDED_KEPT = prefix .. ':stats:ended', 20000
-- When the data here began: runs that are older than it may live and not be in it.
local EPOCH = prefix .. ':epoch'

-- The milliseconds of some 270 years: a place in the order of those who wait is a rank
-- times this, and the time at which one asked.
local RANK = 8796093022208

-- No lease that somebody renews ends sooner, whatever `timeout` says: of beats that come
-- once a second, some may be late.
local SHORTEST_LEASE = 5

-- How long a mark refuses late copies of a call: far beyond every try of a client.
local MARK_SECONDS = 600

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

local function reserved_key(group)
  return prefix .. ':reserved:' .. group
end

-- All reservations that nobody has begun on, of all groups.
local RESERVATIONS = prefix .. ':reservations'

-- A reservation is one no more: a run has begun on it, or it was given up or lapsed.
local function unreserve(group, token)
  redis.call('ZREM', reserved_key(group), token)
  redis.call('ZREM', RESERVATIONS, token)
end

-- Where the run that began on a parked message is kept, to know a second copy of it.
local function begun_key(parked)
  return prefix .. ':begun:' .. parked
end

-- Take a token out of each of its limits.
-- Reply: the limits as a list, and what was kept of it as far as an end needs that: the
-- limits' JSON, when it asked, since when it held, its message's name, whether it was a
-- reservation; nil if nobody holds it.
-- Cost: one removal a limit, of which a run has a handful.
local function drop(token)
  local kept = redis.call('HMGET', token_key(token), 'limits', 'asked', 'since', 'parked_as',
    'reserved')
  redis.call('ZREM', LEASES, token)
  if not kept[1] then
    return nil
  end
  local limits = cjson.decode(kept[1])
  for _, limit in ipairs(limits) do
    redis.call('ZREM', semaphore_key(limit), token)
  end
  if kept[5] then
    unreserve(kept[1], token)
  end
  -- Not the marks that refuse late calls.
  redis.call('HDEL', token_key(token), 'limits', 'task', 'worker', 'since', 'asked', 'fence',
    'reserved', 'parked_as')
  return limits, { group = kept[1], asked = kept[2], since = kept[3], parked_as = kept[4],
    reserved = kept[5] }
end

-- Take out of a limit whose time is over and whom no lease knows: somebody deleted keys
-- by hand, or Redis evicted them. A few of them; whether there were any.
local function drop_orphans(limit, time)
  local found = false
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', semaphore_key(limit), '-inf',
    string.format('%.6f', time), 'LIMIT', 0, 8)) do
    if not redis.call('ZSCORE', LEASES, token) then
      redis.call('ZREM', semaphore_key(limit), token)
      found = true
    end
  end
  return found
end

-- Leave a record of a run that ended, for those who count (see tally): when it asked,
-- since when it held, the time, its limits. Nothing is computed here, as all runs pay for it.
local function note_end(kept, time)
  if kept.asked and kept.since then
    local record = kept.asked .. ' ' .. kept.since .. ' ' .. time .. ' ' .. kept.group
    if redis.call('RPUSH', ENDED, record) > ENDED_KEPT then
      redis.call('LPOP', ENDED)
    end
  end
end

-- Leave a mark that refuses late calls of a token: `ended` and `taken` (back) every
-- acquire, `parked` a park.
local function mark(token, what)
  redis.call('HSET', token_key(token), what, 1)
  redis.call('EXPIRE', token_key(token), MARK_SECONDS)
end
