-- Hand-over: give room to those who wait, in their order, and put their messages back.
--
-- The tokens are taken here and now, under a name of their own: a *reservation* of
-- the group, on which the first run of it begins that stands at a worker's slot.

local RECHECK = prefix .. ':recheck'
local EXPIRING = prefix .. ':expiring'
-- The first bytes of every message that is kept: a mark can be put in behind them.
local OPENING = '{"headers": {'

local function waiter_key(waiter)
  return prefix .. ':waiter:' .. waiter
end

-- Where the waiters of a task are kept that are not named by its id alone.
local function retried_key(task)
  return prefix .. ':retried:' .. task
end

-- In front of its queue a message meets a slot at once, and its tokens lie idle the
-- shortest. With so many reservations that nobody has begun on, it is slots that are
-- scarce: those in front would keep out all who came before, so the next go to the end.
local FRONT_MOST = 32

-- Messages to put back, by the end of their queue; sent off by put_all_back.
local fronts, backs = {}, {}

-- Return what is kept of a waiter: its facts, and its message as it was prepared.
local function read_waiter(waiter)
  local kept = redis.call('GET', waiter_key(waiter))
  if not kept then
    return nil
  end
  local line = string.find(kept, '\n', 1, true)
  return cjson.decode(string.sub(kept, 1, line - 1)), string.sub(kept, line + 1)
end

-- While it waits, its key refuses a late park of it; from here on a mark does.
local function forget_waiter(waiter, facts)
  mark(facts.run, 'parked')
  redis.call('DEL', waiter_key(waiter))
  redis.call('ZREM', EXPIRING, waiter)
  if facts.task then
    redis.call('SREM', retried_key(facts.task), waiter)
  end
end

-- Take a waiter out, with a mark on its message by which a worker discards it if `discard`.
-- Reply: whether it waited.
local function take_out(waiter, messages, discard)
  local facts, message = read_waiter(waiter)
  if not facts then
    return false
  end
  forget_waiter(waiter, facts)
  redis.call('ZREM', group_key(facts.group), waiter)
  place_group(facts.group)
  if discard then
    message = OPENING .. '"concurrency_discard": true, ' .. string.sub(message, #OPENING + 1)
  end
  messages[#messages + 1] = { facts = facts, message = message }
  return true
end

-- Put a message into its queue, where the broker is this server.
local function put_back(push, facts, message)
  if facts.db then
    redis.call('SELECT', facts.db)
  end
  redis.call(push, facts.queue, message)
  if facts.queue_expires then
    redis.call('PEXPIRE', facts.queue, facts.queue_expires)
  end
  if facts.db then
    redis.call('SELECT', facts.home)
  end
end

-- Leave a message to whoever sends it to its broker (see claim).
local function send_out(message)
  local number = redis.call('INCR', OUTBOX .. ':number')
  redis.call('SET', OUTBOX .. ':' .. number, message)
  redis.call('ZADD', OUTBOX, 0, number)
end

local function put_all_back()
  for _, messages in ipairs({ fronts, backs }) do
    for _, one in ipairs(messages) do
      if not one.facts.queue then
        send_out(one.message)
      elseif messages == backs then
        put_back('LPUSH', one.facts, one.message)
      end
    end
  end
  -- What is pushed last to the front of a queue is read first there.
  for i = #fronts, 1, -1 do
    if fronts[i].facts.queue then
      put_back('RPUSH', fronts[i].facts, fronts[i].message)
    end
  end
  fronts, backs = {}, {}
end

-- Reserve a group's limits for its first waiter, and put the message of that back.
local function grant(group)
  local waiter, score = unpack(redis.call('ZPOPMIN', group_key(group)))
  local facts, message = read_waiter(waiter)
  if facts then
    forget_waiter(waiter, facts)
    local token = facts.run .. ':reserved'
    local expiry = math.ceil(time + facts.hold)
    enter(token, parse(group).limits, expiry)
    redis.call('ZADD', LEASES, expiry, token)
    redis.call('ZADD', reserved_key(group), expiry, token)
    redis.call('ZADD', RESERVATIONS, expiry, token)
    redis.call('HSET', token_key(token), 'limits', group, 'asked', score, 'reserved', 1,
      'since', string.format('%.6f', time))
    redis.call('HINCRBY', COUNTERS, 'handed_over:total', 1)
    local messages = redis.call('ZCARD', RESERVATIONS) > FRONT_MOST and backs or fronts
    messages[#messages + 1] = { facts = facts, message = message }
  end
  place_group(group)
end

-- Give a token's limits back to those who wait.
local function set_all_free(limits)
  for _, limit in ipairs(limits) do
    rooms[limit] = nil
    set_free(limit)
  end
end

-- Keep what has room for the one group that was passed over the longest (see sweep);
-- when all of its limits are kept, it gets them. Room is kept by a token like any
-- other, so nobody else has to know of it.
local function collect()
  local kept = redis.call('HMGET', COLLECTING, 'group', 'token', 'until')
  local group, token, over = kept[1], kept[2], tonumber(kept[3])
  if not group then
    return
  end
  local limits = parse(group).limits
  local complete = redis.call('EXISTS', group_key(group)) == 1 and time < over
  for _, limit in ipairs(limits) do
    -- A paused limit may stay so for long: nothing is kept for its sake.
    complete = complete and not is_paused(limit)
  end
  local waits = complete
  if waits then
    for _, limit in ipairs(limits) do
      if room(limit) ~= math.huge and not redis.call('ZSCORE', semaphore_key(limit), token) then
        if room(limit) > 0 then
          enter(token, { limit }, over)
        else
          complete = false
        end
      end
    end
    if not complete then
      return
    end
  end
  for _, limit in ipairs(limits) do
    redis.call('ZREM', semaphore_key(limit), token)
  end
  set_all_free(limits)
  redis.call('DEL', COLLECTING)
  if complete then
    grant(group)
  end
end

-- Take one step towards the waiter that comes first of those that can go on.
local function step(class)
  if first_full(cjson.decode(class)) then
    return place_class(class)
  end
  local own = first(ready_key(class))
  if not own then
    return place_class(class)
  end
  local group = first(bucket_key(class, own))
  if is_full(own) or not group then
    return place_bucket(class, own)
  end
  if first_full(parse(group).own) or redis.call('EXISTS', group_key(group)) == 0 then
    return place_group(group)
  end
  return grant(group)
end

-- File again what waited for limits that have room; return the steps that are left.
local function reopen_freed(steps)
  while steps > 0 do
    local limit = redis.call('SRANDMEMBER', FREED)
    if not limit then
      break
    end
    steps = reopen(limit, steps - 1)
  end
  return steps
end

-- After a change of the configuration, look at every limit that something waits for.
-- At most so many; return how many are left.
local function recheck_all(steps)
  local before = tonumber(redis.call('GET', RECHECK) or nil)
  if before then
    steps = recheck(BLOCKED_SHARED, before, steps)
    steps = recheck(BLOCKED_OWN, before, steps)
    if steps > 0 then
      redis.call('DEL', RECHECK)
    end
  end
  return steps
end

-- Hand room over until nobody who waits can go on, or so many steps are taken.
-- Reply: 1 if there is more to do, and 1 if the outbox has messages to send.
-- Cost: some 30 commands a step.
local function hand_over(steps)
  put_all_back()
  -- Room that is kept for one who left is given up, though nobody else waits for it.
  if closed or redis.call('EXISTS', GROUPS, COLLECTING) == 0 then
    return 0, redis.call('EXISTS', OUTBOX)
  end
  collect()
  -- Half of the steps at most, so that many limits to look at don't keep all waiting.
  local half = math.ceil(steps / 2)
  steps = steps - half + recheck_all(half)
  steps = reopen_freed(steps)
  while steps > 0 and room('global') > 0 do
    local class = first(OPEN)
    if not class then
      break
    end
    step(class)
    steps = steps - 1
  end
  put_all_back()
  local more = redis.call('EXISTS', FREED, RECHECK) > 0
    or (redis.call('EXISTS', OPEN) == 1 and room('global') > 0)
  return more and 1 or 0, redis.call('EXISTS', OUTBOX)
end
