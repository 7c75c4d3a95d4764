-- Moments: until when a limit admits nobody, whatever run ends: its rates and its cool-down.
--
-- A rate says that in any window of `per` seconds at most `max` runs begin. rate:<limit> has
-- the starts that may still count: token → when its run began. For a reservation it is the time
-- when it lapses, the latest at which a run may begin on it, so it counts in every window that it
-- may still fall into. When a run begins on it, the time of its start replaces that.

-- The dimensions that have rates, as ':account:*:'; false if none has. Read once per call.
local rated = nil

local function is_rated(limit)
  if rated == nil then
    rated = redis.call('HGET', key('config:flat'), 'rated')
  end
  local dimension = ':' .. string.match(limit, '^[^:]*') .. ':'
  return rated and string.find(rated, dimension, 1, true) ~= nil
end

local rates = {}

-- Return the rates of a limit: a list of { max, per }, empty if it has none.
local function rates_of(limit)
  if not rates[limit] then
    rates[limit] = {}
    if is_rated(limit) then
      local wildcard = string.match(limit, '^[^:]*') .. ':*'
      local texts = redis.call('HMGET', key('config:rates'), limit, wildcard)
      for max, per in string.gmatch(texts[1] or texts[2] or '', '(%d+)/(%d+)') do
        table.insert(rates[limit], { max = tonumber(max), per = tonumber(per) })
      end
    end
  end
  return rates[limit]
end

-- Return the moment until which a cool-down shuts a limit; 0 if none does.
local function cools_until(limit)
  return tonumber(redis.call('ZSCORE', key('cooldowns'), limit) or 0)
end

-- Return how many more runs may begin now by the rates of a limit; math.huge without any.
local function starts_left(limit)
  local left = math.huge
  for _, rate in ipairs(rates_of(limit)) do
    local begun = redis.call('ZCOUNT', key('rate', limit), '(' .. exact(time - rate.per), '+inf')
    left = math.min(left, rate.max - begun)
  end
  return left
end

-- Return the moment until which a limit is shut, 0 if it is not, and by what: its rate as
-- 'max/per', or 'cooldown'. This many of the latest starts don't count: 0, or 1 for one's own.
local function shut_until(limit, own)
  local moment, cause = cools_until(limit), 'cooldown'
  for _, rate in ipairs(rates_of(limit)) do
    -- The window opens when the first of its last `max` starts leaves it.
    local rank = rate.max - 1 + (own or 0)
    local start = redis.call('ZREVRANGE', key('rate', limit), rank, rank, 'WITHSCORES')[2]
    if start and start + rate.per > moment then
      moment, cause = start + rate.per, rate.max .. '/' .. rate.per
    end
  end
  if moment > time then
    return moment, cause
  end
  return 0
end

-- Record a run's start, or the latest possible one, in each limit that has rates; `instead` is
-- the reservation on which it begins.
local function note_start(token, limits, moment, instead)
  for _, limit in ipairs(limits) do
    local most, longest = 0, 0
    for _, rate in ipairs(rates_of(limit)) do
      most, longest = math.max(most, rate.max), math.max(longest, rate.per)
    end
    if most > 0 then
      local starts = key('rate', limit)
      if instead then
        redis.call('ZREM', starts, instead)
      end
      redis.call('ZADD', starts, exact(moment), token)
      redis.call('ZREMRANGEBYRANK', starts, 0, -most - 1)
      local last = redis.call('ZREVRANGE', starts, 0, 0, 'WITHSCORES')[2]
      redis.call('EXPIREAT', starts, math.ceil(last + longest))
    end
  end
end

-- Take a start back, because no run began on that token; also if the rates are gone by now.
local function take_start_back(token, limits)
  for _, limit in ipairs(limits) do
    redis.call('ZREM', key('rate', limit), token)
  end
end

-- Note that a limit with a moment opens earlier, or now.
local function hasten(limit)
  if is_rated(limit) and redis.call('ZSCORE', key('moments'), limit) then
    redis.call('ZADD', key('moments'), exact(math.max(time, (shut_until(limit)))), limit)
  end
end
