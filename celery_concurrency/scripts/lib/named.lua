-- Named: which limits are counted by name. There is room for so many; one that nobody uses for
-- a day leaves it (snapshot), the rest of a dimension is counted together.

-- constants NAMED_MOST, OTHER

-- Return as what the limits of this one's dimension are counted that have no name.
local function other_of(limit)
  return OTHER .. string.match(limit, '^[^:]*')
end

local function is_configured(limit)
  return redis.call('HEXISTS', key('config:flat'), limit) == 1
end

-- Return whether a limit is counted by name, from now on if there is room.
local function admit(limit)
  if redis.call('ZSCORE', key('stats:named'), limit) then
    return true
  end
  -- Others can't take the room of those that the configuration names.
  local most = is_configured(limit) and 2 * NAMED_MOST or NAMED_MOST
  if redis.call('ZCARD', key('stats:named')) >= most then
    return false
  end
  redis.call('ZADD', key('stats:named'), time, limit)
  return true
end

-- A limit has just got this counter: it stays if it may have a name, else it counts together.
local function begin_counter(what, limit)
  if not admit(limit) then
    redis.call('HDEL', key('stats:counters'), what .. limit)
    redis.call('HINCRBY', key('stats:counters'), what .. other_of(limit), 1)
  end
end
