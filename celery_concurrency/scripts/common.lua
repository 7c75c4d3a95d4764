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
-- When the data here began: runs that are older than it may live and not be in it.
local EPOCH = prefix .. ':epoch'

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

-- Where the run that began on a parked message is kept, to know a second copy of it.
local function begun_key(parked)
  return prefix .. ':begun:' .. parked
end

-- Take a token out of each of its limits.
-- Reply: the limits as a list, and the JSON they were kept as; nil if nobody holds it.
-- Cost: one removal a limit, of which a run has a handful.
local function drop(token)
  local json = redis.call('HGET', token_key(token), 'limits')
  redis.call('ZREM', LEASES, token)
  if not json then
    return nil
  end
  local limits = cjson.decode(json)
  for _, limit in ipairs(limits) do
    redis.call('ZREM', semaphore_key(limit), token)
  end
  -- Not the marks that refuse late calls.
  redis.call('HDEL', token_key(token), 'limits', 'task', 'worker', 'since', 'asked', 'fence',
    'reserved', 'parked_as')
  return limits, json
end

-- Leave a mark that refuses late calls of a token: `ended` and `taken` (back) every
-- acquire, `parked` a park.
local function mark(token, what)
  redis.call('HSET', token_key(token), what, 1)
  redis.call('EXPIRE', token_key(token), MARK_SECONDS)
end
