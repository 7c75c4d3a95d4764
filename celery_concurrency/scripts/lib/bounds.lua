-- Bounds on waiting: how many may wait for a limit, and for how long.
--
-- Who waits for a limit that has bounds is in waiting:<limit>, with the time at which it first
-- asked. `waiting` has each of these limits, and when the first of its waiters is due, or an
-- earlier time: the sweep looks then. It is +inf where they may wait for ever.

-- include groups
-- constants RANK

-- The dimensions that have bounds, as ':account:*:'; false if none has. Read once per call.
local bounded = nil

local bounds = {}

-- Whether anybody is entered anywhere. Read once per call.
local lined_up = nil

local function has_bounds()
  if bounded == nil then
    bounded = redis.call('HGET', key('config:flat'), 'bounded')
  end
  return bounded
end

-- Return how many may wait for a limit, and for how many seconds; 0 for no bound.
local function bounds_of(limit)
  local dimension = string.match(limit, '^[^:]*') .. ':'
  if not (has_bounds() and string.find(bounded, ':' .. dimension, 1, true)) then
    return 0, 0
  end
  if not bounds[limit] then
    local texts = redis.call('HMGET', key('config:bounds'), limit, dimension .. '*')
    local most, seconds = string.match(texts[1] or texts[2] or '0/0', '^(%d+)/(%d+)$')
    bounds[limit] = { tonumber(most), tonumber(seconds) }
  end
  return unpack(bounds[limit])
end

-- Return {'crowded', limit, most, waiting} if one more may not wait in a group.
local function crowd_of(group)
  for _, limit in ipairs(has_bounds() and limits_in(group) or {}) do
    local most = bounds_of(limit)
    local waiting = most > 0 and redis.call('ZCARD', key('waiting', limit))
    if waiting and waiting >= most then
      return { 'crowded', limit, most, waiting }
    end
  end
  return nil
end

-- Return when a ticket was taken, in Unix seconds.
local function asked_at(ticket)
  return ticket % RANK / 1000
end

-- Return when a waiter asked first. One that replaced another has its ticket: it asked when a worker
-- received it, in Unix microseconds; nil or 0 if it is none of these.
local function asked_first(ticket, received)
  return math.max(asked_at(ticket), math.min((received or 0) / 1000000, time))
end

-- Say that who asked first at this time has waited for a limit for as long as it may.
local function overdue(limit, seconds, asked)
  return { 'overdue', limit, seconds, math.max(seconds, math.floor(time - asked)) }
end

-- Return why a denied run may not wait, nil if it may; `ticket` is nil if it did not wait before. One
-- whose task has begun before is not new, so it may wait however many do.
local function refuse_to_wait(group, ticket, has_begun, received)
  if not ticket then
    return not has_begun and crowd_of(group) or nil
  end
  local asked = asked_first(ticket, received)
  for _, limit in ipairs((limits_in(group))) do
    local _, seconds = bounds_of(limit)
    if seconds > 0 and asked + seconds <= time then
      return overdue(limit, seconds, asked)
    end
  end
  return nil
end

-- Note when the first waiter of a limit is due.
local function note_due(limit)
  local asked = redis.call('ZRANGE', key('waiting', limit), 0, 0, 'WITHSCORES')[2]
  local _, seconds = bounds_of(limit)
  if not asked then
    redis.call('ZREM', key('waiting'), limit)
  else
    redis.call('ZADD', key('waiting'), seconds > 0 and exact(asked + seconds) or '+inf', limit)
  end
end

-- Enter a waiter of a group, who asked first at this time, in those limits that have bounds.
local function line_up(waiter, group, asked)
  for _, limit in ipairs(has_bounds() and limits_in(group) or {}) do
    local most, seconds = bounds_of(limit)
    if most + seconds > 0 then
      lined_up = true
      redis.call('ZADD', key('waiting', limit), 'NX', exact(asked), waiter)
      note_due(limit)
    end
  end
end

-- Forget who is entered in those limits of a group that have no bounds any more.
local function forget_unbounded(group)
  for _, limit in ipairs((limits_in(group))) do
    local most, seconds = bounds_of(limit)
    if most + seconds == 0 and redis.call('ZREM', key('waiting'), limit) == 1 then
      redis.call('UNLINK', key('waiting', limit))
    end
  end
end

-- Remove a waiter that leaves its group: also from limits that have no bounds any more.
local function leave_line(waiter, group)
  if lined_up == nil then
    -- Where an operator deleted that key, who leaves must not count for ever.
    lined_up = has_bounds() or redis.call('EXISTS', key('waiting')) == 1
  end
  for _, limit in ipairs(lined_up and limits_in(group) or {}) do
    if redis.call('ZREM', key('waiting', limit), waiter) == 1
      and redis.call('EXISTS', key('waiting', limit)) == 0 then
      redis.call('ZREM', key('waiting'), limit)
    end
  end
end
