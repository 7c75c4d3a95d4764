-- Room: how many more runs each limit admits, by its maximum, its rates and its cool-down, and how
-- many places it has left. It is counted once per call, so tokens must enter or leave through the
-- functions here after that.

-- include adaptive
-- include bounds
-- include freed
-- include moments
-- include places
-- include probes
-- constants PAUSED

-- `fair` is the dimension whose names have shares, false if none has.
local enabled, opens, fair
enabled, opens, rated, adapting, bounded, fair = unpack(redis.call('HMGET', key('config:flat'),
  'enabled', 'opens', 'rated', 'adapting', 'bounded', 'fair'))
-- After a loss of data nobody is admitted until the living runs have reported what they hold.
local closed = not enabled or time < tonumber(opens)

-- Whether any limit cools down or is on probation.
local cooling = redis.call('EXISTS', key('cooldowns'), key('probes')) > 0

-- Return how many more runs a limit admits, and how many places it has left. An adaptive one may
-- rise for a run that needs so many places.
local function count_room(limit, needed)
  if closed then
    return 0, 0
  elseif enabled == '0' then
    return math.huge, math.huge
  end
  local wildcard = string.match(limit, '^[^:]*') .. ':*'
  local configured = redis.call('HMGET', key('config:flat'), limit, wildcard)
  local max = tonumber(configured[1] or configured[2] or 0)
  if cooling and cools_until(limit) > time then
    return 0, 0
  end
  local left = starts_left(limit)
  local probe = cooling and probe_of(limit)
  if cooling and probe ~= nil then
    left = math.min(left, probe and 0 or 1)
  end
  if max == 0 and not is_adaptive(limit) then
    return left, math.huge
  end
  local held = redis.call('ZCARD', key('semaphore', limit))
  max = adapt(limit, held, max, needed)
  local places = max == 0 and math.huge or max - held
  return math.min(left, places), places
end

local rooms, places = {}, {}

-- Return how many more runs a limit admits; less than 1 is full, math.huge is unlimited. Then how
-- many places it has left.
local function room(limit)
  if not rooms[limit] then
    rooms[limit], places[limit] = count_room(limit, 1)
  end
  return rooms[limit], places[limit]
end

-- Return whether a run of this weight will not have room in a limit, whoever ends.
local function is_too_heavy(limit, weight)
  local taken = places_in(limit, weight)
  if taken == 1 or enabled == '0' then
    return false
  end
  local most = highest_of(limit, configured_max(limit))
  return most > 0 and taken > most
end

-- Return whether a limit has room for a run of this weight. One that is too heavy needs a single
-- place, to be put back and fail.
local function has_room(limit, weight)
  local left, free = room(limit)
  local needed = places_in(limit, weight)
  if needed == 1 or free >= needed or is_too_heavy(limit, weight) then
    return left > 0
  elseif is_adaptive(limit) then
    rooms[limit], places[limit] = count_room(limit, needed)
  end
  return rooms[limit] > 0 and places[limit] >= needed
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

-- Put a token of this weight into each of these limits.
local function enter(token, limits, weight, expiry)
  for _, limit in ipairs(limits) do
    local left, free = room(limit)
    local taken = places_in(limit, weight)
    redis.call('ZADD', key('semaphore', limit), until_expiry(expiry, token, taken))
    rooms[limit], places[limit] = left - 1, free - 1
    if taken > 1 or is_adaptive(limit) then
      -- Count it again: with this token an adaptive limit may be used in full, and rise.
      rooms[limit] = nil
    end
  end
end

-- Take a token of this weight out of each of these limits.
local function leave(token, limits, weight)
  for _, limit in ipairs(limits) do
    redis.call('ZREM', key('semaphore', limit), members_in(limit, token, weight))
    rooms[limit] = nil
  end
  note_freed(limits)
end
