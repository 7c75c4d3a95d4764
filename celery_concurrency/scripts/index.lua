-- The index over those who wait: where each group is filed, so that who frees
-- room finds the next one without looking at those who can't use it.
--
-- A *group* is all waiters with exactly the same limits, named by these as JSON;
-- <prefix>:group:<group> orders them. Its *class* is what many groups share (the
-- platform and the task type), its *own* limits are the others (the account, the
-- user's dimensions). `global` is shared by all and looked at first, so nothing
-- is filed by it. Three levels, each ordered by the place of its first waiter:
--
--   open           classes whose shared limits have room
--   ready:<class>  own limits that have room, under which groups of that class are filed
--   bucket:<class><own limit>   groups filed under that limit
--
-- A group is in one bucket: that of an own limit without room, if it has one. A
-- bucket whose limit is full is not ready, and a class with a full limit is not
-- open: both are kept in shut:<limit> instead, and come back when it has room.
-- An entry may be out of date (its limit filled up since it was filed); whoever
-- comes upon one files it anew, so each is looked at once for each room it missed.

local OPEN = prefix .. ':open'
local BLOCKED_SHARED = prefix .. ':blocked:shared'
local BLOCKED_OWN = prefix .. ':blocked:own'
-- The bucket of groups that have no own limit: nothing can be full there.
local NOTHING = ''

local time = now()
local enabled, opens = unpack(redis.call('HMGET', FLAT, 'enabled', 'opens'))
-- After a loss of data nobody is admitted before those who live have said what they hold.
local closed = not enabled or time < tonumber(opens)
local rooms = {}

-- Return how many more a limit admits now: those already given away in this call counted.
local function room(limit)
  local known = rooms[limit]
  if known then
    return known
  end
  local left
  if closed then
    left = 0
  elseif enabled == '0' then
    left = math.huge
  else
    local wildcard = string.match(limit, '^[^:]*') .. ':*'
    local most = redis.call('HMGET', FLAT, limit, wildcard)
    local max = tonumber(most[1] or most[2] or 0)
    if max == 0 then
      left = math.huge
    else
      left = max - redis.call('ZCARD', semaphore_key(limit))
    end
  end
  rooms[limit] = left
  return left
end

-- Whether a limit admits nobody for now, whoever leaves.
local function is_paused(limit)
  return enabled ~= '0' and redis.call('HGET', FLAT, limit) == '-1'
end

-- Put a token into each of these limits.
local function enter(token, limits, expiry)
  for _, limit in ipairs(limits) do
    local left = room(limit)
    redis.call('ZADD', semaphore_key(limit), expiry, token)
    rooms[limit] = left - 1
  end
end

-- Return a group's limits, its class, and its own limits.
local parsed = {}
local function parse(group)
  local found = parsed[group]
  if not found then
    found = { limits = cjson.decode(group), own = {} }
    local shared = {}
    for _, limit in ipairs(found.limits) do
      if is_shared(limit) then
        shared[#shared + 1] = limit
      elseif limit ~= 'global' then
        found.own[#found.own + 1] = limit
      end
    end
    found.class = cjson.encode(shared)
    if #found.own == 0 then
      found.own[1] = NOTHING
    end
    parsed[group] = found
  end
  return found
end

local function bucket_key(class, own)
  return prefix .. ':bucket:' .. class .. own
end

local function ready_key(class)
  return prefix .. ':ready:' .. class
end

-- Return the first member of a sorted set and its score, or nil.
local function first(key)
  local found = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return found[1], found[2]
end

local function is_full(limit)
  return limit ~= NOTHING and room(limit) <= 0
end

local function first_full(limits)
  for _, limit in ipairs(limits) do
    if is_full(limit) then
      return limit
    end
  end
  return nil
end

local function shut(limit, class, score)
  redis.call('ZADD', shut_key(limit), score, class)
  redis.call('ZADD', is_shared(limit) and BLOCKED_SHARED or BLOCKED_OWN, 'NX', time, limit)
end

-- File a class where it belongs now: open, or under a shared limit that is full.
local function place_class(class)
  local shared = cjson.decode(class)
  local _, score = first(ready_key(class))
  local full = score and first_full(shared)
  for _, limit in ipairs(shared) do
    if limit ~= full then
      redis.call('ZREM', shut_key(limit), class)
    end
  end
  if score and not full then
    redis.call('ZADD', OPEN, score, class)
  else
    redis.call('ZREM', OPEN, class)
    if full then
      shut(full, class, score)
    end
  end
end

-- File a bucket where it belongs now: ready, or under its limit if that is full.
local function place_bucket(class, own)
  local _, score = first(bucket_key(class, own))
  if score and not is_full(own) then
    redis.call('ZREM', shut_key(own), class)
    redis.call('ZADD', ready_key(class), score, own)
  else
    redis.call('ZREM', ready_key(class), own)
    if score then
      shut(own, class, score)
    else
      redis.call('ZREM', shut_key(own), class)
    end
  end
  place_class(class)
end

-- File a group where it belongs now; nowhere, if nobody of it waits.
local function place_group(group)
  local found = parse(group)
  local _, score = first(group_key(group))
  local place = score and (first_full(found.own) or found.own[1])
  for _, own in ipairs(found.own) do
    if own ~= place and redis.call('ZREM', bucket_key(found.class, own), group) == 1 then
      place_bucket(found.class, own)
    end
  end
  if place then
    redis.call('ZADD', GROUPS, score, group)
    redis.call('ZADD', bucket_key(found.class, place), score, group)
    place_bucket(found.class, place)
  else
    redis.call('ZREM', GROUPS, group)
  end
end

-- File again what waits for a limit that has room, at most so many; return how many are left.
local function reopen(limit, steps)
  while steps > 0 and room(limit) > 0 do
    local class = redis.call('ZPOPMIN', shut_key(limit))[1]
    if not class then
      redis.call('ZREM', is_shared(limit) and BLOCKED_SHARED or BLOCKED_OWN, limit)
      redis.call('SREM', FREED, limit)
      return steps
    end
    if is_shared(limit) then
      place_class(class)
    else
      place_bucket(class, limit)
    end
    steps = steps - 1
  end
  if room(limit) <= 0 then
    redis.call('SREM', FREED, limit)
  end
  return steps
end

-- Look whether limits that something waits for have room by now, those first that
-- were looked at the longest ago: an operator's DEL and a raised limit tell nobody.
-- At most so many; return how many are left.
local function recheck(key, before, steps)
  local limits = redis.call('ZRANGEBYSCORE', key, '-inf', string.format('(%.6f', before),
    'LIMIT', 0, steps)
  for _, limit in ipairs(limits) do
    if redis.call('EXISTS', shut_key(limit)) == 0 then
      redis.call('ZREM', key, limit)
    else
      redis.call('ZADD', key, time, limit)
      if room(limit) <= 0 and drop_orphans(limit, time) then
        rooms[limit] = nil
      end
      if room(limit) > 0 then
        redis.call('SADD', FREED, limit)
      end
    end
  end
  return steps - #limits
end
