-- sweep: see to what no call of a task sees to, once a period for all workers together.
--
-- It takes back tokens that nobody renewed in time, puts waiters back that have expired,
-- looks again at limits that something waits for, chooses whom to collect for, and goes
-- on with a hand-over under way.
--
-- KEYS   1 the prefix
-- ARGV   1 seconds between two sweeps, 0 for one now
--        2 batch: how many of each are looked at, at most
--        3 seconds after which a limit is looked at again
--        4 seconds after which a waiter may be collected for   5 and for how long
--        6 steps of the hand-over at most
-- Reply  {1 if it was time for a sweep, tokens taken back, more, outbox}; more: call
--        again with 0
-- Cost   one removal a limit of each token, about 10 commands for each of the others
-- Again  a second copy finds those gone and takes the next; all of them were due.

-- include common
-- include held
-- include orphans
-- include index
-- include handover

local NEXT = prefix .. ':sweep:next'
-- Until when nothing is taken back, after a time in which nobody could renew anything.
local GRACE = prefix .. ':sweep:grace'
-- So long without a sweep is such a time; and so long is waited then.
-- A lease that was renewed by the beat before has more left than such a time.
local GAP, GRACE_SECONDS = 2, 5
local CURSOR = prefix .. ':collecting:cursor'
-- Of the holders of a limit, those are looked at that came or were renewed last.
local HOLDERS = 8

local batch = tonumber(ARGV[2])
if tonumber(ARGV[1]) > 0 then
  local next = tonumber(redis.call('GET', NEXT) or time)
  if time < next then
    return {0, 0, 0, 0}
  elseif time - next > GAP then
    redis.call('SET', GRACE, 1, 'EX', GRACE_SECONDS)
  end
  redis.call('SET', NEXT, string.format('%.6f', time + tonumber(ARGV[1])))
end

local function due(key)
  return redis.call('ZRANGEBYSCORE', key, '-inf', string.format('%.6f', time), 'LIMIT', 0, batch)
end

local function take_back_tokens()
  if redis.call('EXISTS', GRACE) == 1 then
    return 0
  end
  local tokens = due(LEASES)
  for _, token in ipairs(tokens) do
    local expiry = tonumber(redis.call('ZSCORE', semaphore_key('global'), token) or 0)
    local limits, kept = drop(token)
    if kept and kept.reserved then
      redis.call('HINCRBY', COUNTERS, 'lapsed:total', 1)
    else
      mark(token, 'taken')
      -- Its own time, or that of its worker, which has been silent for too long.
      redis.call('HINCRBY', COUNTERS, expiry > time and 'reclaimed:total' or 'expired:total', 1)
      note_end(kept or {}, time)
    end
    set_all_free(limits or {})
  end
  return #tokens
end

local function put_expired_waiters_back()
  local waiters = due(EXPIRING)
  for _, waiter in ipairs(waiters) do
    if not take_out(waiter, fronts, true) then
      redis.call('ZREM', EXPIRING, waiter)
    end
  end
  return #waiters
end

-- Whether one that asked later than `score` holds a token of the limit.
local function has_junior(limit, score)
  for _, token in ipairs(redis.call('ZREVRANGE', semaphore_key(limit), 0, HOLDERS - 1)) do
    local asked = redis.call('HGET', token_key(token), 'asked')
    if asked and tonumber(asked) > score then
      return true
    end
  end
  return false
end

-- Whether a group needs several scarce limits, and juniors got all that are full now.
local function is_passed_over(group, score)
  local scarce, full = 0, 0
  for _, limit in ipairs(parse(group).limits) do
    if is_paused(limit) then
      return false
    end
    if room(limit) ~= math.huge then
      scarce = scarce + 1
      if room(limit) <= 0 then
        full = full + 1
        if not has_junior(limit, score) then
          return false
        end
      end
    end
  end
  return scarce > 1 and full > 0
end

-- Choose whom to collect for: look at the next groups in the order of their places.
local function choose()
  if redis.call('EXISTS', COLLECTING) == 1 then
    return
  end
  local from = redis.call('GET', CURSOR)
  local groups = redis.call('ZRANGEBYSCORE', GROUPS, from and '(' .. from or '-inf', '+inf',
    'WITHSCORES', 'LIMIT', 0, batch)
  redis.call('DEL', CURSOR)
  for i = 1, #groups, 2 do
    local group, score = groups[i], tonumber(groups[i + 1])
    local asked = score % RANK / 1000
    local waiter = asked + tonumber(ARGV[4]) < time and first(group_key(group))
    if waiter == nil then
      -- Somebody deleted its key by hand.
      place_group(group)
    elseif waiter and is_passed_over(group, score) then
      redis.call('HSET', COLLECTING, 'group', group, 'token', waiter .. ':collecting',
        'until', math.ceil(time + tonumber(ARGV[5])))
      redis.call('SET', CURSOR, groups[i + 1])
      return
    end
  end
  if #groups == 2 * batch then
    redis.call('SET', CURSOR, groups[#groups])
  end
end

local taken = take_back_tokens()
local expired = put_expired_waiters_back()
local before = time - tonumber(ARGV[3])
local left = math.min(recheck(BLOCKED_SHARED, before, batch),
  recheck(BLOCKED_OWN, before, 4 * batch))
choose()
local more, outbox = hand_over(tonumber(ARGV[6]))
if taken == batch or expired == batch or left == 0 then
  more = 1
end
return {1, taken, more, outbox}
