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

-- Return whether a group's runs are too heavy for one of their limits: it was lowered.
local function must_fail(group)
  local found = parse(group)
  for _, limit in ipairs(found.weight > 1 and found.limits or {}) do
    if is_too_heavy(limit, found.weight) then
      return true
    end
  end
  return false
end

-- Reserve a group's limits for a waiter with this ticket.
local function reserve(group, ticket, facts)
  local token = facts.run .. RESERVED_SUFFIX
  local limits, expiry = parse(group).limits, math.ceil(time + facts.hold)
  if fair then
    charge(parse(group), ticket)
  end
  enter(token, limits, parse(group).weight, expiry)
  note_start(token, limits, expiry)
  redis.call('ZADD', key('leases'), expiry, token)
  if cooling and enabled == '1' then
    note_probe(token, limits)
  end
  redis.call('ZADD', key('reserved', group), expiry, token)
  redis.call('ZADD', key('reservations'), expiry, token)
  redis.call('HSET', key('token', token), 'limits', group, 'asked', ticket, 'reserved', 1,
    'since', exact(time))
  redis.call('HINCRBY', key('stats:counters'), 'handed_over:total', 1)
end

-- Reserve a group's limits for its first waiter, whose message becomes one of `outgoing`. One that
-- is too heavy goes without: acquire tells it so, and it fails.
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
    note_place(message, ticket)
    if not must_fail(group) then
      reserve(group, ticket, message.facts)
    end
    local many = redis.call('ZCARD', key('reservations')) > FRONT_MOST
    table.insert(many and outgoing.behind or outgoing.front, message)
  elseif waiter then
    redis.call('ZREM', key('names'), waiter) -- somebody deleted its record by hand
    leave_line(waiter, group)
  end
  file_group(group)
end

-- Return whether to go on collecting for a group: not while one of its limits is closed, or lower
-- than its weight.
local function may_collect(group, over)
  for _, limit in ipairs(parse(group).limits) do
    if is_closed(limit) then
      return false
    end
  end
  return time < over and not must_fail(group)
    and redis.call('EXISTS', key('group', group)) == 1
end

-- Return how many of its places in a limit the collecting token has.
local function collected_in(limit, token, needed)
  local count = 0
  for _, score in ipairs(redis.call('ZMSCORE', key('semaphore', limit), members(token, needed))) do
    count = count + (score and 1 or 0)
  end
  return count
end

-- Let the collecting token take more of its places in a limit as they come free, and give back
-- those that are too many since the limit was lowered; return whether it has all of them.
local function collect_in(limit, token, needed, over)
  local _, free = room(limit)
  if free == math.huge then
    return true
  end
  local had = collected_in(limit, token, needed)
  local has = math.max(0, math.min(needed, had + free))
  if has < had then
    leave(token, { limit }, needed)
  end
  if has ~= had and has > 0 then
    redis.call('ZADD', key('semaphore', limit), until_expiry(over, token, has))
    rooms[limit] = nil
  end
  return has == needed
end

-- Collect room for the group that was passed over for longest (see sweep), with a token
-- like any other. When the token has all places of all limits, the group gets them.
local function collect(outgoing)
  local group, token, over = unpack(redis.call('HMGET', key('collecting'), 'group', 'token',
    'until'))
  if not group then
    return
  end
  local limits, weight = parse(group).limits, parse(group).weight
  local goes_on, complete = may_collect(group, tonumber(over)), true
  for _, limit in ipairs(goes_on and limits or {}) do
    complete = collect_in(limit, token, places_in(limit, weight), tonumber(over)) and complete
  end
  if not complete then
    return
  end
  leave(token, limits, weight)
  redis.call('DEL', key('collecting'))
  if goes_on then
    grant(group, outgoing)
  end
end

-- Go down the index from an open class to its first waiter, and grant the waiter its limits. If an
-- entry on the way is out of date, file it again instead.
local function step(class, outgoing)
  local found, flow = parse_class(class), class
  if found.is_divided then
    flow = first(key('flows', class))
  end
  local own = flow and first(key('ready', flow))
  if not own or first_full(found.shared, found.weight) then
    return file_flow(flow or class)
  end
  local group = not is_full(own, found.weight) and first_group(flow, own)
  if not group then
    return file_bucket(flow, own)
  end
  local filed = parse(group)
  if filed.flow ~= flow then
    -- It was filed before the fair dimension changed.
    redis.call('ZREM', bucket_key(flow, own), group)
    file_bucket(flow, own)
    return file_group(group)
  end
  -- A lone group has no other limits of its own, and was found by its first waiter.
  if not filed.is_lone
    and (first_full(filed.own, filed.weight) or redis.call('EXISTS', key('group', group)) == 0) then
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
    redis.call('UNLINK', key('moments'), key('turns'))
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
  if is_full('global', 1) and redis.call('EXISTS', key('open')) == 1 then
    file_moment('global')
  end
  put_in_front(outgoing.front)
  put_behind(outgoing.behind)
  local more = not outgoing.withheld and (due == half
    or redis.call('EXISTS', key('freed'), key('recheck')) > 0
    or (redis.call('EXISTS', key('open')) == 1 and room('global') > 0))
  return more and 1 or 0, redis.call('EXISTS', key('outbox'))
end
