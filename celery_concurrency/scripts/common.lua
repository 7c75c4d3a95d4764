-- What the verbs share; put in front of each of them when they are loaded.
--
-- Every script is given one key, the prefix, and builds all others from it, so
-- that a hash tag in the prefix keeps a call in one cluster slot.
-- Every time is the server's, in Unix seconds.

local prefix = KEYS[1]
local LEASES = prefix .. ':leases'
local COUNTERS = prefix .. ':stats:counters'
local CONFIG = prefix .. ':config'
local FLAT = prefix .. ':config:flat'

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

-- Take a token out of each of its limits; false if nobody holds it.
-- Cost: one removal a limit, of which a run has a handful.
local function drop(token)
  local limits = redis.call('HGET', token_key(token), 'limits')
  redis.call('ZREM', LEASES, token)
  if not limits then
    return false
  end
  for _, limit in ipairs(cjson.decode(limits)) do
    redis.call('ZREM', semaphore_key(limit), token)
  end
  redis.call('DEL', token_key(token))
  return true
end

-- Leave a mark that refuses every later acquire of a token, for so many seconds.
local function mark_ended(token, seconds)
  redis.call('HSET', token_key(token), 'ended', 1)
  redis.call('EXPIRE', token_key(token), seconds)
end
