-- Named: which limits are counted by name. There is room for a fixed number of names; a name that
-- nobody uses for a day is removed (snapshot). A dimension's other limits are counted together.

-- constants NAMED_MOST, OTHER

-- Return the name under which a dimension's unnamed limits are counted.
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
  -- Other limits can't take the room of those that the configuration names.
  local most = is_configured(limit) and 2 * NAMED_MOST or NAMED_MOST
  if redis.call('ZCARD', key('stats:named')) >= most then
    return false
  end
  redis.call('ZADD', key('stats:named'), time, limit)
  return true
end

-- A limit has just got this counter: keep it if the limit may have a name, else count it together.
local function begin_counter(what, limit)
  if not admit(limit) then
    redis.call('HDEL', key('stats:counters'), what .. limit)
    redis.call('HINCRBY', key('stats:counters'), what .. other_of(limit), 1)
  end
end
