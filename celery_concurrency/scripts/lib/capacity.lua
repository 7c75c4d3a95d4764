-- Room: how many more tokens each limit admits, by its maximum, its rates and its cool-down. It is
-- counted once per call, so tokens must enter or leave through the functions here after that.

-- include adaptive
-- include freed
-- include moments
-- include probes
-- constants PAUSED

local enabled, opens
enabled, opens, rated, adapting = unpack(redis.call('HMGET', key('config:flat'), 'enabled', 'opens',
  'rated', 'adapting'))
-- After a loss of data nobody is admitted until the living runs have reported what they hold.
local closed = not enabled or time < tonumber(opens)

-- Whether any limit cools down or is on probation.
local cooling = redis.call('EXISTS', key('cooldowns'), key('probes')) > 0

local function count_room(limit)
  if closed then
    return 0
  elseif enabled == '0' then
    return math.huge
  end
  local wildcard = string.match(limit, '^[^:]*') .. ':*'
  local configured = redis.call('HMGET', key('config:flat'), limit, wildcard)
  local max = tonumber(configured[1] or configured[2] or 0)
  if cooling and cools_until(limit) > time then
    return 0
  end
  local left = starts_left(limit)
  local probe = cooling and probe_of(limit)
  if cooling and probe ~= nil then
    left = math.min(left, probe and 0 or 1)
  end
  if max == 0 and not is_adaptive(limit) then
    return left
  end
  local held = redis.call('ZCARD', key('semaphore', limit))
  max = adapt(limit, held, max)
  return max == 0 and left or math.min(left, max - held)
end

local rooms = {}

-- Return how many more tokens a limit admits; less than 1 is full, math.huge is unlimited.
local function room(limit)
  if not rooms[limit] then
    rooms[limit] = count_room(limit)
  end
  return rooms[limit]
end

-- Return until when nobody is admitted whatever run ends: 0 if the end of a run may open it,
-- infinity while it is paused.
local function closed_until(limit)
  if enabled == '0' then
    return 0
  elseif tonumber(redis.call('HGET', key('config:flat'), limit) or 0) == PAUSED then
    return math.huge
  end
  return (shut_until(limit))
end

-- Return whether nobody may collect room in a limit: it is closed, or needs a probe.
local function is_closed(limit)
  return closed_until(limit) > 0 or cooling and probe_of(limit) ~= nil
end

-- Put a token into each of these limits.
local function enter(token, limits, expiry)
  for _, limit in ipairs(limits) do
    local left = room(limit)
    redis.call('ZADD', key('semaphore', limit), expiry, token)
    rooms[limit] = left - 1
    if is_adaptive(limit) then
      -- Count it again: with this token the limit may be used in full, and rise.
      rooms[limit] = nil
    end
  end
end

-- Take a token out of each of these limits.
local function leave(token, limits)
  for _, limit in ipairs(limits) do
    redis.call('ZREM', key('semaphore', limit), token)
    rooms[limit] = nil
  end
  note_freed(limits)
end
