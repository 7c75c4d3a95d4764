-- Room: how many more tokens each limit admits. It is counted once a call, so tokens
-- that enter or leave after that do so by the functions here.

-- include freed
-- constants PAUSED

local enabled, opens = unpack(redis.call('HMGET', key('config:flat'), 'enabled', 'opens'))
-- After a loss of data nobody is admitted before the living runs have said what they hold.
local closed = not enabled or time < tonumber(opens)

local function count_room(limit)
  if closed then
    return 0
  elseif enabled == '0' then
    return math.huge
  end
  local wildcard = string.match(limit, '^[^:]*') .. ':*'
  local configured = redis.call('HMGET', key('config:flat'), limit, wildcard)
  local max = tonumber(configured[1] or configured[2] or 0)
  if max == 0 then
    return math.huge
  end
  return max - redis.call('ZCARD', key('semaphore', limit))
end

local rooms = {}

-- Return how many more tokens a limit admits; less than 1 is full, math.huge is unlimited.
local function room(limit)
  if not rooms[limit] then
    rooms[limit] = count_room(limit)
  end
  return rooms[limit]
end

-- Return whether a limit admits nobody for now, whoever leaves.
local function is_paused(limit)
  return enabled ~= '0' and tonumber(redis.call('HGET', key('config:flat'), limit) or 0) == PAUSED
end

-- Put a token into each of these limits.
local function enter(token, limits, expiry)
  for _, limit in ipairs(limits) do
    local left = room(limit)
    redis.call('ZADD', key('semaphore', limit), expiry, token)
    rooms[limit] = left - 1
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
