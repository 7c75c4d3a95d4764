-- snapshot: store a copy of the counters, one per period, as their history.
--
-- A copy has the counters that changed since the one before. The first of an hour has all, so
-- the counters at any time are found from there. The copies also show which names were used:
-- names that have long been unused are removed.
--
-- KEYS   1 the prefix
-- ARGV   1 seconds of a period; periods begin at whole multiples of them, at the full
--          minute, so a copy has what was counted before that
--        2 how many copies are kept
--        3 seconds after which an unused name is removed that the configuration does not have
--        4.. upper bounds of the histograms (see tally)
-- Reply  {1 if a copy was made, 0 if this period has one; 1 if there is no room for more names}
-- Cost   two reads and at most two writes per named counter, of which there is a bounded number
--        (see named.lua); four commands for each of 64 unused names and of a hundred adaptive
--        limits
-- Again  a second copy or another worker's call within the period does nothing.
-- OOM    done: removing the oldest copy frees what this one takes

-- include named
-- include adaptive
-- constants BY_LIMIT, SHARED_DIMENSIONS, TOTALS

-- Adaptive limits whose state is kept for each minute: the last that moved, and some that the
-- configuration names.
local ADAPTIVE_MOST = 100
local FULL_SECONDS = 3600
-- Unused names that one call looks at, and how many surplus names it removes.
local UNUSED_MOST, SURPLUS_MOST = 64, 1000

local last = redis.call('XREVRANGE', key('stats:history'), '+', '-', 'COUNT', 1)[1]
last = last and tonumber(string.match(last[1], '^%d+')) / 1000

local function is_new(seconds)
  return not last or math.floor(last / seconds) < math.floor(time / seconds)
end

if not is_new(tonumber(ARGV[1])) then
  return {0, 0}
end
never_refuse()

-- Somebody added more by hand.
local surplus = redis.call('ZCARD', key('stats:named')) - 2 * NAMED_MOST
if surplus > 0 then
  redis.call('ZREMRANGEBYRANK', key('stats:named'), 0, math.min(surplus, SURPLUS_MOST) - 1)
end

-- The fields of all counters, and the name that each belongs to, if any.
local fields, names = {}, {}
for _, what in ipairs(TOTALS) do
  fields[#fields + 1] = what .. ':total'
end
for _, what in ipairs(BY_LIMIT) do
  for _, dimension in ipairs(SHARED_DIMENSIONS) do
    fields[#fields + 1] = what .. ':' .. other_of(dimension)
  end
  for _, limit in ipairs(redis.call('ZREVRANGE', key('stats:named'), 0, 2 * NAMED_MOST - 1)) do
    fields[#fields + 1] = what .. ':' .. limit
    names[#fields] = limit
  end
end

local now = redis.call('HMGET', key('stats:counters'), unpack(fields))
local before = redis.call('HMGET', key('stats:copied'), unpack(fields))
local all, changed = {}, {}
for i, field in ipairs(fields) do
  if now[i] then
    all[field] = now[i]
  end
  if now[i] ~= before[i] then
    changed[field] = now[i] or '0' -- an operator deleted it
    if now[i] and names[i] then
      redis.call('ZADD', key('stats:named'), time, names[i])
    end
  end
end

-- Remove everything that is counted of a limit.
local function forget(limit)
  local counters, times = {}, {}
  for _, what in ipairs(BY_LIMIT) do
    local field = what .. ':' .. limit
    counters[#counters + 1] = field
    if all[field] then
      changed[field], all[field] = '0', nil
    end
  end
  for _, kind in ipairs({'wait ', 'hold '}) do
    for i = 4, #ARGV do
      times[#times + 1] = kind .. ARGV[i] .. ' ' .. limit
    end
    times[#times + 1] = kind .. 'inf ' .. limit
    times[#times + 1] = kind .. 'sum ' .. limit
  end
  redis.call('ZREM', key('stats:named'), limit)
  redis.call('HDEL', key('stats:counters'), unpack(counters))
  redis.call('HDEL', key('stats:times'), unpack(times))
end

local unused = redis.call('ZRANGEBYSCORE', key('stats:named'), '-inf', time - ARGV[3],
  'LIMIT', 0, UNUSED_MOST)
for _, limit in ipairs(unused) do
  if is_configured(limit) then
    redis.call('ZADD', key('stats:named'), time, limit)
  else
    forget(limit)
  end
end

local is_full = is_new(FULL_SECONDS)
if is_full then
  redis.call('DEL', key('stats:copied'))
end
for field, count in pairs(is_full and all or changed) do
  if count == '0' then
    redis.call('HDEL', key('stats:copied'), field)
  else
    redis.call('HSET', key('stats:copied'), field, count)
  end
end

-- Record the adaptive limits' maxima in force, and how many run.
local function sample()
  local limits = redis.call('ZREVRANGE', key('adaptive'), 0, ADAPTIVE_MOST - 1)
  local named = redis.call('HSCAN', key('config:adaptive'), 0, 'COUNT', ADAPTIVE_MOST)[2]
  for i = 1, #named, 2 do
    table.insert(limits, named[i])
  end
  local states, count = {}, 0
  for _, limit in ipairs(limits) do
    local entry = count < ADAPTIVE_MOST and not states[limit] and string.sub(limit, -2) ~= ':*'
      and entry_of(limit)
    if entry then
      count = count + 1
      local configured = entry.observes and 0 or configured_max(limit)
      local in_force = lower_of((state_of(limit, entry)), configured)
      states[limit] = { configured == PAUSED and 0 or in_force,
        redis.call('ZCARD', key('semaphore', limit)) }
    end
  end
  if count > 0 then
    redis.call('XADD', key('adaptive:history'), '*', 'states', cjson.encode(states))
  end
  redis.call('XTRIM', key('adaptive:history'), 'MINID',
    string.format('%.0f', (time - MOVES_SECONDS) * 1000))
end
if redis.call('HGET', key('config:flat'), 'adapting') then
  sample()
end
redis.call('XADD', key('stats:history'), 'MAXLEN', '~', ARGV[2], '*',
  is_full and 'counters' or 'changed', cjson.encode(is_full and all or changed))
return {1, redis.call('ZCARD', key('stats:named')) >= NAMED_MOST and 1 or 0}
