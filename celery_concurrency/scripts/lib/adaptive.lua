-- Adaptive limits: a maximum that moves by itself within a range: down on a refusal, up while it
-- is used in full and nobody is refused.

-- include freed
-- constants PAUSED

-- A limit that has not moved for so long begins at its highest again (seconds: a week).
local FORGET_SECONDS = 7 * 86400
-- How long moves are kept, how many per limit, and how many until a worker has logged them.
local MOVES_SECONDS, MOVES_MOST, UNLOGGED_MOST = 86400, 1500, 1000

-- The dimensions that have such limits, as ':account:*:'; false if none has. Read once per call.
local adapting = nil

local function is_adaptive(limit)
  if adapting == nil then
    adapting = redis.call('HGET', key('config:flat'), 'adapting')
  end
  local dimension = ':' .. string.match(limit, '^[^:]*') .. ':'
  return adapting and string.find(adapting, dimension, 1, true) ~= nil
end

-- Return the entry of a limit: { min, max, decrease, every, observes, id }; nil if it has none.
local function entry_of(limit)
  if not is_adaptive(limit) then
    return nil
  end
  local wildcard = string.match(limit, '^[^:]*') .. ':*'
  local texts = redis.call('HMGET', key('config:adaptive'), limit, wildcard)
  local text = texts[1] or texts[2]
  if not text then
    return nil
  end
  local min, max, decrease, every, mode, id =
    string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  -- Entries that one change set have the same time.
  id = id .. (texts[1] and ' own' or ' all')
  return { min = tonumber(min), max = tonumber(max), decrease = tonumber(decrease),
    every = tonumber(every), observes = mode == 'observe', id = id }
end

-- Return the configured maximum of a limit: 0 for none.
local function configured_max(limit)
  local wildcard = string.match(limit, '^[^:]*') .. ':*'
  local own, all = unpack(redis.call('HMGET', key('config:flat'), limit, wildcard))
  return tonumber(own or all or 0)
end

-- Return the maximum in force, given a limit's own and the configured one.
local function lower_of(own, configured)
  return configured > 0 and math.min(own, configured) or own
end

-- Return the highest maximum that a limit may have in force: 0 for none.
local function highest_of(limit, configured)
  local entry = entry_of(limit)
  if not entry or entry.observes or configured == PAUSED then
    return configured
  end
  return lower_of(entry.max, configured)
end

-- Return a limit's state: its own maximum, the time of its last move or refusal, and when it last
-- fell. What it did under an earlier entry does not count.
local function state_of(limit, entry)
  local max, since, fell, id = unpack(redis.call('HMGET', key('adaptive', limit), 'max', 'since',
    'fell', 'entry'))
  if id ~= entry.id then
    return entry.max, 0, 0
  end
  max = tonumber(max or nil) or entry.max
  since, fell = tonumber(since or nil) or 0, tonumber(fell or nil) or 0
  -- A clock that was ahead may have left times in the future.
  return math.max(entry.min, math.min(entry.max, max)), math.min(since, time),
    fell <= time and fell or 0
end

-- Store a limit's own maximum; at the highest, nothing needs to be stored.
local function store(limit, entry, max)
  local state = key('adaptive', limit)
  if redis.call('HGET', state, 'entry') ~= entry.id then
    redis.call('DEL', state)
  end
  redis.call('HSET', state, 'since', exact(time), 'entry', entry.id)
  if max < entry.max then
    redis.call('HSET', state, 'max', max)
  else
    redis.call('HDEL', state, 'max')
  end
  redis.call('EXPIRE', state, FORGET_SECONDS)
end

-- Record a move, for people and for the log.
local function note_move(limit, before, after, reason)
  redis.call('ZADD', key('adaptive'), exact(time), limit)
  -- Two for each that comes.
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', key('adaptive'), '-inf',
    exact(time - FORGET_SECONDS), 'LIMIT', 0, 2)) do
    redis.call('ZREM', key('adaptive'), one)
  end
  local moves, at = key('moves', limit), math.floor(time * 1000)
  redis.call('XADD', moves, '*', 'from', before, 'to', after, 'reason', reason)
  redis.call('XTRIM', moves, 'MAXLEN', MOVES_MOST)
  redis.call('XTRIM', moves, 'MINID', string.format('%.0f', at - MOVES_SECONDS * 1000))
  redis.call('EXPIRE', moves, MOVES_SECONDS)
  redis.call('RPUSH', key('adaptive:unlogged'), cjson.encode({ limit = limit, at = exact(time),
    from = before, to = after, reason = reason }))
  redis.call('LTRIM', key('adaptive:unlogged'), -UNLOGGED_MOST, -1)
end

-- A run of this limit was refused: the maximum in force falls, at most once in `every` seconds.
local function fall(limit, reason)
  local entry = entry_of(limit)
  if not entry then
    return
  end
  local before, _, fell = state_of(limit, entry)
  if time - fell < entry.every then
    store(limit, entry, before)
    return
  end
  -- Fall from the maximum in force: a lower configured one would swallow the first steps.
  before = math.max(entry.min, lower_of(before, configured_max(limit)))
  -- 100 * 0.29 is a little less than 29.
  local after = math.max(entry.min, math.floor(before * entry.decrease + 1e-9))
  store(limit, entry, after)
  redis.call('HSET', key('adaptive', limit), 'fell', exact(time))
  if after ~= before then
    note_move(limit, before, after, reason)
  end
end

-- Return the maximum in force of a limit with so many places taken: the configured one (0 for
-- none), or its own if that is lower. If it is used in full, so that one who needs this many places
-- finds too few, it rises `every` seconds after the last move or refusal. It does not rise while
-- more are taken than it has, because those runs began before it fell.
local function adapt(limit, held, configured, needed)
  local entry = entry_of(limit)
  if not entry then
    return configured
  end
  local max, since = state_of(limit, entry)
  local most = lower_of(max, configured)
  local is_full = configured ~= PAUSED and held + needed > most
    and (held <= most or entry.observes)
  if is_full and max < entry.max and time - since >= entry.every then
    store(limit, entry, max + 1)
    max = max + 1
    if lower_of(max, configured) > most then
      note_move(limit, most, most + 1, 'used in full')
      note_freed({ limit })
    end
  end
  if entry.observes or configured == PAUSED then
    return configured
  end
  return lower_of(max, configured)
end
