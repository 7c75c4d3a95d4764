-- sweep: do the work that no task's own call does, once per period over all workers.
--
-- It takes back tokens that nobody renewed in time, puts back waiters that have expired or have
-- waited for as long as they may, enters in a limit's line who waited before it had bounds, checks
-- blocked limits again, chooses a waiter to collect for, continues a hand-over, and removes workers
-- that fell silent, cool-downs that have ended and probations for which no run came.
--
-- KEYS   1 the prefix
-- ARGV   1 seconds between two sweeps, 0 to sweep now
--        2 batch: how many of each kind to look at, at most
--        3 seconds after which a limit is checked again
--        4 seconds after which a waiter may be collected for   5 and for how long
--        6 steps of the hand-over at most
-- Reply  {1 if it was due, tokens taken back, more (call again with 0), outbox}
-- Cost   one removal per limit of each token, about 10 commands for each of the others
-- Again  a second copy finds those gone and takes the next; all of them were due.
-- OOM    takes tokens back; the hand-over as in advance, and expired waiters and such stay

-- include taking_out
-- include giving_up
-- include cooldowns
-- include handover
-- constants RANK, COLLECTING_SUFFIX, WEIGHT_MOST

-- After this many seconds without a sweep, nobody could renew anything, so nothing is taken back
-- for a time of grace. A lease that was renewed before the gap has more left than the gap.
local GAP, GRACE_SECONDS = 2, 5
-- How many tokens of a limit are looked at: those that expire last.
local HOLDERS = 8

local batch = tonumber(ARGV[2])
never_refuse()
if tonumber(ARGV[1]) > 0 then
  local due = tonumber(redis.call('GET', key('sweep:next')) or time)
  if time < due then
    return {0, 0, 0, 0}
  elseif time - due > GAP then
    redis.call('SET', key('sweep:grace'), 1, 'EX', GRACE_SECONDS)
  end
  redis.call('SET', key('sweep:next'), exact(time + tonumber(ARGV[1])))
end

local function due_of(set)
  return redis.call('ZRANGEBYSCORE', set, '-inf', time, 'LIMIT', 0, batch)
end

local function take_back(token)
  local expiry = tonumber(redis.call('ZSCORE', key('semaphore', 'global'), token) or 0)
  local record = drop_token(token) or { limits = {} }
  if record.reserved then
    redis.call('HINCRBY', key('stats:counters'), 'lapsed:total', 1)
  else
    mark(token, 'taken')
    -- Reclaimed if its own time is not over: its worker fell silent.
    redis.call('HINCRBY', key('stats:counters'), expiry > time and 'reclaimed:total' or 'expired:total', 1)
    note_end(record)
  end
  note_freed(record.limits)
end

-- Take back the tokens that are due; return how many.
local function take_back_tokens()
  local tokens = due_of(key('leases'))
  for _, token in ipairs(tokens) do
    take_back(token)
  end
  return #tokens
end

-- Forget workers that have been silent for as long as it takes to lose their tokens; return how
-- many.
local function forget_workers()
  local workers = due_of(key('workers'))
  for _, worker in ipairs(workers) do
    redis.call('ZREM', key('workers'), worker)
    redis.call('DEL', key('worker', worker))
  end
  return #workers
end

-- Put back the waiters that have expired; return how many were looked at.
local function put_back_expired()
  local waiters, messages = due_of(key('expiring')), {}
  for _, waiter in ipairs(waiters) do
    messages[#messages + 1] = take_out(waiter)
    -- Also if somebody deleted its record by hand.
    redis.call('ZREM', key('expiring'), waiter)
  end
  put_back_discarded(messages)
  return #waiters
end

-- Give up the waiters of a limit that are due, at most this many; return how many were looked at.
local function give_up_due(limit, most)
  local _, seconds = bounds_of(limit)
  local found = seconds == 0 and {} or redis.call('ZRANGEBYSCORE', key('waiting', limit), '-inf',
    exact(time - seconds), 'WITHSCORES', 'LIMIT', 0, most)
  local messages = {}
  for i = 1, #found, 2 do
    local message = take_out(found[i])
    if message then
      message.refusal = overdue(limit, seconds, found[i + 1])
      messages[#messages + 1] = message
    else
      -- Somebody deleted its record by hand.
      redis.call('ZREM', key('waiting', limit), found[i])
    end
  end
  give_up(messages)
  note_due(limit)
  return #found / 2
end

-- Give up waiters that are due; return how many were looked at.
local function give_up_waiters()
  local limits, looked_at = due_of(key('waiting')), 0
  for _, limit in ipairs(limits) do
    looked_at = looked_at + give_up_due(limit, batch - looked_at)
  end
  return math.max(#limits, looked_at)
end

-- After a change of the bounds: go on with a walk over all who wait, and enter them in their
-- limits. Return how many were looked at.
local function walk(most)
  local last = redis.call('GET', key('waiting:walk'))
  if not last then
    return 0
  end
  local waiters = redis.call('ZRANGEBYLEX', key('names'), last == '' and '-' or '(' .. last, '+',
    'LIMIT', 0, most)
  for _, waiter in ipairs(waiters) do
    local message = read_waiter(waiter)
    local group = message and message.facts.group
    local ticket = group and redis.call('ZSCORE', key('group', group), waiter)
    if ticket then
      forget_unbounded(group)
      local newest = message.facts.newest
      line_up(waiter, group, asked_first(ticket, newest and newest.received))
    end
  end
  if #waiters == most then
    redis.call('SET', key('waiting:walk'), waiters[most])
  else
    redis.call('DEL', key('waiting:walk'))
  end
  return #waiters
end

-- Return the tokens of a limit that expire last, each once.
local function last_holders(limit)
  local found = redis.call('ZREVRANGE', key('semaphore', limit), 0, HOLDERS - 1)
  local is_weighty = false
  for _, member in ipairs(found) do
    is_weighty = is_weighty or token_of(member) ~= member
  end
  if not is_weighty then
    return found
  end
  local tokens = {}
  for _, member in ipairs(redis.call('ZREVRANGE', key('semaphore', limit), 0,
    HOLDERS * WEIGHT_MOST - 1)) do
    -- Its own name is the last of its members here.
    if #tokens < HOLDERS and token_of(member) == member then
      table.insert(tokens, member)
    end
  end
  return tokens
end

-- Return whether a run with a later ticket holds a token of the limit.
local function has_junior(limit, ticket)
  for _, token in ipairs(last_holders(limit)) do
    if tonumber(redis.call('HGET', key('token', token), 'asked') or 0) > ticket then
      return true
    end
  end
  return false
end

-- Return whether a group needs several scarce limits, or several places in one, and later runs hold
-- all that are full now.
local function is_passed_over(group, ticket)
  local scarce, full, weight = 0, 0, parse(group).weight
  if must_fail(group) then
    return false
  end
  for _, limit in ipairs(parse(group).limits) do
    if is_closed(limit) then
      return false
    end
    if room(limit) ~= math.huge then
      scarce = scarce + places_in(limit, weight)
      if not has_room(limit, weight) then
        full = full + 1
        if not has_junior(limit, ticket) then
          return false
        end
      end
    end
  end
  return scarce > 1 and full > 0 and not (fair and not is_due(parse(group), ticket))
end

-- Choose a waiter to collect for: look at the next groups in the order of their tickets.
local function choose()
  if redis.call('EXISTS', key('collecting')) == 1 then
    return
  end
  local from = redis.call('GET', key('collecting:cursor'))
  local groups = redis.call('ZRANGEBYSCORE', key('groups'), from and '(' .. from or '-inf', '+inf',
    'WITHSCORES', 'LIMIT', 0, batch)
  redis.call('DEL', key('collecting:cursor'))
  for i = 1, #groups, 2 do
    local group, ticket = groups[i], tonumber(groups[i + 1])
    local asked = ticket % RANK / 1000
    local is_old = asked + tonumber(ARGV[4]) < time
    local waiter = is_old and first(key('group', group))
    if is_old and (not waiter or not first_full(parse(group).limits, parse(group).weight)) then
      -- It has left, or could go on and the index does not lead to it: somebody deleted a key by
      -- hand, or a worker of an older version, which knows no lone groups, emptied one.
      file_group(group)
    elseif is_old and is_passed_over(group, ticket) then
      redis.call('HSET', key('collecting'), 'group', group, 'token', waiter .. COLLECTING_SUFFIX,
        'until', math.ceil(time + tonumber(ARGV[5])))
      redis.call('SET', key('collecting:cursor'), groups[i + 1])
      return
    end
  end
  if #groups == 2 * batch then
    redis.call('SET', key('collecting:cursor'), groups[#groups])
  end
end

-- Open limits on probation for which no run came; return how many.
local function forget_probations()
  local limits = redis.call('ZRANGEBYSCORE', key('probes'), '-inf', time - PROBATION_SECONDS,
    'LIMIT', 0, batch)
  for _, limit in ipairs(limits) do
    end_probation(limit)
  end
  note_freed(limits)
  return #limits
end

-- Remove cool-downs that have ended; return how many.
local function forget_cooldowns()
  local limits = due_of(key('cooldowns'))
  for _, limit in ipairs(limits) do
    redis.call('ZREM', key('cooldowns'), limit)
  end
  return #limits
end

local taken, silent = 0, 0
if redis.call('EXISTS', key('sweep:grace')) == 0 then
  taken, silent = take_back_tokens(), forget_workers()
end
local expired, overdue_ones, walked = 0, 0, 0
if not out_of_memory then
  expired = put_back_expired()
  walked = enabled and walk(4 * batch) or 0
  -- While all are admitted, who waits is about to go on.
  overdue_ones = enabled == '1' and give_up_waiters() or 0
end
local before = time - tonumber(ARGV[3])
local left = math.min(recheck(key('blocked:shared'), before, batch),
  recheck(key('blocked:own'), before, 4 * batch))
local forgotten = forget_probations()
choose()
local more, outbox = hand_over(tonumber(ARGV[6]))
-- Newcomers don't check moments if nothing cools down, so first hand over what is due.
if more == 0 and forget_cooldowns() == batch then
  more = 1
end
if taken == batch or silent == batch or expired == batch or overdue_ones >= batch
  or walked == 4 * batch or left == 0 or forgotten == batch then
  more = 1
end
return {1, taken, more, outbox}
