-- Observe: which runs an observed maximum, adaptive limit or rate would have turned away, and for
-- how long. Each run enters an imaginary queue: first come, first served, as if this limit alone
-- decided.
--
-- Rates: observed:starts:<limit> has the latest imagined starts. The n-th run would begin when
-- it asks, or `per` after the start of the `max`-th run before it.
--
-- A maximum: a run would begin when it asks, or when the first place comes free. That depends on
-- how long the runs before it really held (the recursion of J. Kiefer and J. Wolfowitz, "On the
-- theory of queues with many servers", 1955), so it is found out as they end.
-- observed:undecided:<limit> has the runs for which it is not known yet, by when they asked, and
-- observed:ended:<limit> how long those of them that have ended held. observed:running:<limit> has
-- the runs that have a place and still run, by when they would have begun, and
-- observed:places:<limit> when the places of ended runs come free. A run that still runs leaves
-- its place later than now: it would have begun no earlier than it did.

-- include adaptive

local DAY = 86400

-- For how many runs one call finds out the start, and how many may wait for that. With one more,
-- the first is assumed to begin now, so the counts are a lower bound.
local STEPS, UNDECIDED_MOST = 32, 1000

-- Return what is observed of a limit, as text, and its entry in the configuration; nil if nothing.
local function observed_of(limit, kind)
  local wildcard = string.match(limit, '^[^:]*') .. ':*'
  local own, all = unpack(redis.call('HMGET', key('config:observed'), kind .. ' ' .. limit,
    kind .. ' ' .. wildcard))
  local text = own or all
  if text and text ~= '' then
    return text, kind .. ' ' .. (own and limit or wildcard)
  end
end

-- Return the observed maximum of a limit and its entry: the adaptive one as it is now, if that is
-- observed; nil if neither is.
local function observed_maximum(limit)
  local text, entry = observed_of(limit, 'adaptive')
  if text then
    return (state_of(limit, entry_of(limit))), entry
  end
  text, entry = observed_of(limit, 'max')
  return tonumber(text), entry
end

-- Count a run that would have waited this many seconds. It stays counted even if it never begins:
-- a counter that people plot must not go down.
local function count(entry, wait)
  local counts = key('observed', entry)
  redis.call('HSETNX', counts, 'since', exact(time))
  redis.call('HINCRBY', counts, 'runs', 1)
  if wait > 0 then
    redis.call('HINCRBY', counts, 'denied', 1)
    redis.call('HINCRBYFLOAT', counts, 'seconds', exact(wait))
    if wait > tonumber(redis.call('HGET', counts, 'longest') or 0) then
      redis.call('HSET', counts, 'longest', exact(wait))
    end
  end
end

-- Put a run into the queue of a limit's rates; return whether there is one.
local function begin_by_rates(token, limit)
  local text, entry = observed_of(limit, 'rates')
  if not text then
    return false
  end
  local starts, start, most, longest = key('observed:starts', limit), time, 0, 0
  for max, per in string.gmatch(text, '(%d+)/(%d+)') do
    local before = redis.call('ZREVRANGE', starts, max - 1, max - 1, 'WITHSCORES')[2]
    start = before and math.max(start, before + per) or start
    most, longest = math.max(most, max), math.max(longest, per)
  end
  redis.call('ZADD', starts, exact(start), token)
  redis.call('ZREMRANGEBYRANK', starts, 0, -most - 1)
  redis.call('EXPIREAT', starts, math.ceil(math.min(start, time + DAY) + longest))
  count(entry, start - time)
  return true
end

-- No run began: take back its imagined start from a limit's rates.
local function forget_by_rates(token, limit)
  redis.call('ZREM', key('observed:starts', limit), token)
end

-- Remove the run that has held a place for longest, if it is unknown: somebody deleted it by hand,
-- or the limit was not observed for a while after it began.
local function drop_unknown(running)
  local oldest = redis.call('ZRANGE', running, 0, 0)[1]
  if oldest and not redis.call('ZSCORE', key('leases'), oldest) then
    redis.call('ZREM', running, oldest)
  end
end

-- Return when a run that asked at this time would have begun, and take that place; nil while that
-- is not known.
local function take_place(limit, max, asked)
  local running, places = key('observed:running', limit), key('observed:places', limit)
  local still = redis.call('ZCARD', running)
  -- If more places are taken than it has, this many must come free first.
  local before = still + redis.call('ZCARD', places) - max
  if before < 0 then
    return asked
  end
  local free = tonumber(redis.call('ZRANGE', places, before, before, 'WITHSCORES')[2])
  local too_many = redis.call('ZCARD', key('observed:undecided', limit)) > UNDECIDED_MOST
  if free and (free <= time or still == 0 or too_many) then
    redis.call('ZREMRANGEBYRANK', places, 0, before)
    return math.max(free, asked)
  elseif too_many then
    redis.call('ZREMRANGEBYRANK', running, 0, before - redis.call('ZCARD', places))
    redis.call('DEL', places)
    return time
  end
end

-- Find out when the undecided runs would have begun, in order, as far as that is known by now.
local function decide(limit, max, entry)
  local undecided, ended = key('observed:undecided', limit), key('observed:ended', limit)
  local running, places = key('observed:running', limit), key('observed:places', limit)
  drop_unknown(running)
  for _ = 1, STEPS do
    local token, asked = unpack(redis.call('ZRANGE', undecided, 0, 0, 'WITHSCORES'))
    redis.call('ZREMRANGEBYSCORE', places, '-inf', asked or exact(time))
    local start = token and take_place(limit, max, tonumber(asked))
    if not start then
      break
    end
    local held = redis.call('HGET', ended, token)
    redis.call('ZREM', undecided, token)
    redis.call('HDEL', ended, token)
    redis.call('ZADD', held and places or running, exact(start + (held or 0)), token)
    count(entry, start - asked)
  end
  for _, one in ipairs({ undecided, ended, running, places }) do
    redis.call('EXPIRE', one, DAY)
  end
end

-- Put a run into the queue of a limit's maximum; return whether there is one.
local function begin_by_maximum(token, limit)
  local max, entry = observed_maximum(limit)
  if max then
    redis.call('ZADD', key('observed:undecided', limit), exact(time), token)
    decide(limit, max, entry)
  end
  return max
end

-- A run has ended that held for this long, nil if it never began: its place comes free.
local function end_by_maximum(token, limit, held)
  local max, entry = observed_maximum(limit)
  local start = redis.call('ZSCORE', key('observed:running', limit), token)
  local undecided = redis.call('ZSCORE', key('observed:undecided', limit), token)
  if undecided and held and max then
    redis.call('HSET', key('observed:ended', limit), token, exact(held))
  end
  redis.call('ZREM', key('observed:running', limit), token)
  if undecided and not (held and max) then
    redis.call('ZREM', key('observed:undecided', limit), token)
  elseif start and max and held then
    redis.call('ZADD', key('observed:places', limit), exact(start + held), token)
  end
  if max then
    decide(limit, max, entry)
  end
end

-- A run begins: look at its limits in dimensions (':account:*:platform:*:') that are observed.
local function observe_start(token, limits, dimensions)
  local any = false
  for _, limit in ipairs(limits) do
    local dimension = ':' .. string.match(limit, '^[^:]*') .. ':*:'
    if string.find(dimensions, dimension, 1, true) then
      local by_rates, by_maximum = begin_by_rates(token, limit), begin_by_maximum(token, limit)
      any = any or by_rates or by_maximum
    end
  end
  if any then
    redis.call('HSET', key('token', token), 'observed', 1)
  end
end

-- An observed run that began at this time (text) has ended; or it never began.
local function observe_end(token, limits, since, unbegun)
  for _, limit in ipairs(limits) do
    if unbegun then
      forget_by_rates(token, limit)
    end
    end_by_maximum(token, limit, not unbegun and math.max(0, time - since) or nil)
  end
end
