-- Hand-over: reserve freed room for waiters in the order of their tickets, and put their
-- messages back. A reservation belongs to the group: the group's first run to reach a worker's
-- slot begins on it.

-- include capacity
-- include index
-- include messages
-- constants RESERVED_SUFFIX

-- A message at the front of its queue reaches a slot soonest, so its tokens are idle for the
-- shortest time. With more reservations than this, slots are scarce, and further messages go to
-- the back.
local FRONT_MOST = 32

-- Reserve a group's limits for its first waiter, whose message becomes one of `outgoing`.
local function grant(group, outgoing)
  local waiter, ticket = unpack(redis.call('ZPOPMIN', key('group', group)))
  local message = read_waiter(waiter)
  if out_of_memory and message and message.facts.queue then
    -- Keep it: kombu needs memory to take it, and would lose it.
    redis.call('ZADD', key('group', group), ticket, waiter)
    outgoing.withheld = true
    return
  elseif message then
    forget_waiter(waiter, message.facts)
    local token = message.facts.run .. RESERVED_SUFFIX
    local expiry = math.ceil(time + message.facts.hold)
    enter(token, parse(group).limits, expiry)
    note_start(token, parse(group).limits, expiry)
    redis.call('ZADD', key('leases'), expiry, token)
    if cooling and enabled == '1' then
      note_probe(token, parse(group).limits)
    end
    redis.call('ZADD', key('reserved', group), expiry, token)
    redis.call('ZADD', key('reservations'), expiry, token)
    redis.call('HSET', key('token', token), 'limits', group, 'asked', ticket, 'reserved', 1,
      'since', exact(time))
    redis.call('HINCRBY', key('stats:counters'), 'handed_over:total', 1)
    local many = redis.call('ZCARD', key('reservations')) > FRONT_MOST
    table.insert(many and outgoing.behind or outgoing.front, message)
  elseif waiter then
    redis.call('ZREM', key('names'), waiter) -- somebody deleted its record by hand
  end
  file_group(group)
end

-- Return whether to go on collecting for a group: not while one of its limits is closed.
local function may_collect(group, over)
  for _, limit in ipairs(parse(group).limits) do
    if is_closed(limit) then
      return false
    end
  end
  return time < over and redis.call('EXISTS', key('group', group)) == 1
end

-- Put the collecting token into the limits that have room, and take it out of those that were
-- lowered since; return whether it is in all of them.
local function enter_rest(token, limits, over)
  local complete = true
  for _, limit in ipairs(limits) do
    local is_in = redis.call('ZSCORE', key('semaphore', limit), token)
    if room(limit) < (is_in and 0 or 1) then
      complete = false
      if is_in then
        leave(token, { limit })
      end
    elseif room(limit) ~= math.huge and not is_in then
      enter(token, { limit }, over)
    end
  end
  return complete
end

-- Collect room for the group that was passed over for longest (see sweep), with a token
-- like any other. When the token is in all limits, the group gets them.
local function collect(outgoing)
  local group, token, over = unpack(redis.call('HMGET', key('collecting'), 'group', 'token',
    'until'))
  if not group then
    return
  end
  local limits = parse(group).limits
  local goes_on = may_collect(group, tonumber(over))
  if goes_on and not enter_rest(token, limits, tonumber(over)) then
    return
  end
  leave(token, limits)
  redis.call('DEL', key('collecting'))
  if goes_on then
    grant(group, outgoing)
  end
end

-- Go down the index from an open class to its first waiter, and grant the waiter its limits. If an
-- entry on the way is out of date, file it again instead.
local function step(class, outgoing)
  local own = first(key('ready', class))
  if not own or first_full(cjson.decode(class)) then
    return file_class(class)
  end
  local group = first(bucket_key(class, own))
  if not group or is_full(own) then
    return file_bucket(class, own)
  end
  if first_full(parse(group).own) or redis.call('EXISTS', key('group', group)) == 0 then
    return file_group(group)
  end
  return grant(group, outgoing)
end

-- Hand room over until no waiter can go on, in at most this many steps of some 30 commands.
-- Return 1 if there is more to do, and 1 if the outbox has messages to send.
local function hand_over(steps)
  -- Give up room that was collected for a waiter that left, even if nobody else waits.
  local anybody = redis.call('EXISTS', key('groups'), key('collecting')) > 0
  if not anybody then
    -- Otherwise the watching worker would look for ever at a moment that nobody waits for.
    redis.call('UNLINK', key('moments'))
  end
  if closed or not anybody then
    return 0, redis.call('EXISTS', key('outbox'))
  end
  local outgoing = { front = {}, behind = {} }
  collect(outgoing)
  -- At most half of the steps, so that checks of many limits don't keep everybody waiting.
  local half = math.ceil(steps / 2)
  steps = steps - half + recheck_all(half)
  local due = free_due(half)
  steps = reopen_freed(steps)
  while steps > 0 and room('global') > 0 and not outgoing.withheld do
    local class = first(key('open'))
    if not class then
      break
    end
    step(class, outgoing)
    steps = steps - 1
  end
  if is_full('global') and redis.call('EXISTS', key('open')) == 1 then
    file_moment('global')
  end
  put_in_front(outgoing.front)
  put_behind(outgoing.behind)
  local more = not outgoing.withheld and (due == half
    or redis.call('EXISTS', key('freed'), key('recheck')) > 0
    or (redis.call('EXISTS', key('open')) == 1 and room('global') > 0))
  return more and 1 or 0, redis.call('EXISTS', key('outbox'))
end
