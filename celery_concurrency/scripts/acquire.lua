-- acquire: give a run a token in each of its limits, or in none of them.
--
-- KEYS   1 the prefix
-- ARGV   1 token: the run's id, which begins with its task's id
--        2 the names of the user's own dimensions, as the caller knows them
--        3 limits, a JSON list: ["global", "platform:douyin", ...]; names its group
--        4 the task's name   5 the worker's name, both for those who look
--        6 rank: 0 for the highest priority, each lower one 1 more; 255 at most
--        7 the place that its message waited at, '' if it never waited
--        8 the name under which its message was parked, '' if it never was
--        9 seconds for which a second copy of a parked message is known
--        10 seconds after which the token is taken back if nobody renews it, '' for
--          those of its expiry
--        11 the group that its message waited in, where that is another one; else ''
--        12 '1' to be counted whether there is room or not: the run has begun
-- Reply  {'granted', expiry, fence}    the token is held until expiry; fence is a
--                                      number that only grows
--        {'denied', limit, held, max, place}  the first limit without room; max -1:
--                                      paused. place orders those who wait
--        {'behind', limit, place}      there may be room, for others who came before
--        {'ended'}                     the run was given up before this call came,
--                                      or its time is over
--        {'running', token}            another run has begun on the same message
--        {'done'}                      and has ended: this copy is one too many
--        {'dimensions', names}         argument 2 is out of date; nothing was done
--        {'unconfigured'}              no flat configuration; nothing was done
-- Cost   about 4 commands a limit, a denial one for each that is counted; nothing grows with holders, waiters or
--        configuration, but for the logarithm in a sorted set.
-- Again  a second copy finds the token held and repeats the grant; one that comes
--        after the run was given up or expired finds the mark that release and
--        sweep leave; a denial leaves nothing but a number used up, gives up a
--        reservation that is of no use to anybody, and is counted as often as it is
--        answered.

-- include common

local token, group, parked = ARGV[1], ARGV[3], ARGV[8]
local key = token_key(token)
local time = now()

local limits = cjson.decode(group)
local fields = {'enabled', 'timeout', 'dimensions', 'opens'}
for _, limit in ipairs(limits) do
  fields[#fields + 1] = limit
  fields[#fields + 1] = string.match(limit, '^[^:]*') .. ':*'
end
local config = redis.call('HMGET', FLAT, unpack(fields))
if not config[3] then
  return {'unconfigured'}
elseif config[3] ~= ARGV[2] then
  return {'dimensions', config[3]}
end

if redis.call('EXISTS', key) == 1 then
  -- Held, or ended. One whose time is over has ended too, swept or not.
  local expiry = tonumber(redis.call('ZSCORE', LEASES, token) or 0)
  if expiry > time then
    return {'granted', math.ceil(expiry), redis.call('HGET', key, 'fence')}
  end
  return {'ended'}
end

if parked ~= '' then
  local begun = redis.call('GET', begun_key(parked))
  if begun == 'ended' then
    return {'done'}
  elseif begun and tonumber(redis.call('ZSCORE', LEASES, begun) or 0) > time then
    return {'running', begun}
  end
end

-- Those who wait are ordered by priority, then by the time at which they asked: 43 bits
-- for that, so that rank and time fit a double exactly.
local function ordered(milliseconds)
  return string.format('%.0f', tonumber(ARGV[6]) * RANK + milliseconds)
end

-- Return the place of this run in that order, which nobody else has.
local function place()
  if ARGV[7] ~= '' then
    return ARGV[7]
  end
  local ticket = math.max(tonumber(redis.call('GET', prefix .. ':ticket') or 0) + 1,
    math.floor(time * 1000))
  redis.call('SET', prefix .. ':ticket', string.format('%.0f', ticket))
  return ordered(ticket)
end

-- Return a number that no acquisition had before: the server's microseconds, or one more
-- than the last where its clock went back. Lost data can't make it smaller.
local function next_fence()
  local micros = string.format('%.0f', time * 1000000)
  local last = redis.call('SET', prefix .. ':fence', micros, 'GET')
  if last and tonumber(last) >= tonumber(micros) then
    micros = string.format('%.0f', tonumber(last) + 1)
    redis.call('SET', prefix .. ':fence', micros)
  end
  return micros
end

-- Whether a limit is one of those that many groups share, as which room is handed over in steps.
local function is_shared(limit)
  return limit == 'global' or string.find(limit, 'platform:', 1, true) == 1
    or string.find(limit, 'task_type:', 1, true) == 1
end

-- Return why the run has to wait: nil if it need not.
local function refusal()
  if ARGV[12] == '1' then
    return nil
  elseif time < tonumber(config[4]) then
    -- The data was lost: first those who live say what they hold.
    return {'behind', 'global', place()}
  elseif config[1] ~= '1' then
    return nil
  end
  local others = redis.call('EXISTS', GROUPS) == 1
  -- Those who can go on are not all through: where they and this run count in a limit
  -- together, its room is theirs.
  local under_way = others and redis.call('EXISTS', prefix .. ':open') == 1
  local in_steps
  for i, limit in ipairs(limits) do
    local max = tonumber(config[3 + 2 * i] or config[4 + 2 * i] or 0)
    if max ~= 0 then
      -- Who expired counts until a sweep takes it back: that alone can tell a dead run
      -- from a time in which nobody could renew anything.
      local held = redis.call('ZCARD', semaphore_key(limit))
      if held >= max and drop_orphans(limit, time) then
        held = redis.call('ZCARD', semaphore_key(limit))
      end
      if held >= max then
        return {'denied', limit, held, max, place()}
      end
      in_steps = in_steps or (under_way and is_shared(limit) and limit)
    end
  end
  if in_steps then
    return {'behind', in_steps, place()}
  end
  if others then
    for _, limit in ipairs(limits) do
      if redis.call('SISMEMBER', FREED, limit) == 1 then
        return {'behind', limit, place()}
      end
    end
    if redis.call('EXISTS', group_key(group)) == 1 then
      return {'behind', limits[#limits], place()}
    end
  end
  return nil
end

-- Whole seconds, rounded up: what redis-cli shows is what the seed's diagram shows.
local timeout = tonumber(config[2])
if ARGV[10] ~= '' then
  timeout = math.max(timeout, SHORTEST_LEASE)
end
local expiry = math.ceil(time + timeout)

-- Take over the semaphores of a reservation of its group; true if there was one.
local function take_reservation()
  local reserved = redis.call('ZRANGEBYSCORE', reserved_key(group), string.format('(%.6f', time),
    '+inf', 'LIMIT', 0, 1)[1]
  if not reserved then
    return false
  end
  for _, limit in ipairs(limits) do
    -- What an operator's DEL freed stays free.
    if redis.call('ZREM', semaphore_key(limit), reserved) == 1 then
      redis.call('ZADD', semaphore_key(limit), expiry, token)
    end
  end
  unreserve(group, reserved)
  redis.call('ZREM', LEASES, reserved)
  redis.call('DEL', token_key(reserved))
  return true
end

-- Give up a reservation that is of no use: the user's dimensions have changed since its
-- message waited. What it frees is for those who wait, this run among them.
local function leave_reservation(waited_in)
  local reserved = redis.call('ZRANGE', reserved_key(waited_in), 0, 0)[1]
  if reserved then
    for _, limit in ipairs(drop(reserved) or {}) do
      if redis.call('EXISTS', prefix .. ':shut:' .. limit) == 1 then
        redis.call('SADD', FREED, limit)
      end
    end
  end
end

-- Count what became of this call: in all, by platform and by task type; never by account.
local function count(what)
  redis.call('HINCRBY', COUNTERS, what .. ':total', 1)
  for _, limit in ipairs(limits) do
    if string.find(limit, 'platform:', 1, true) == 1 or string.find(limit, 'task_type:', 1, true) == 1 then
      redis.call('HINCRBY', COUNTERS, what .. ':' .. limit, 1)
    end
  end
end

if ARGV[11] ~= '' then
  leave_reservation(ARGV[11])
end
if parked == '' or not take_reservation() then
  local refused = refusal()
  if refused then
    count('denied')
    return refused
  end
  for _, limit in ipairs(limits) do
    redis.call('ZADD', semaphore_key(limit), expiry, token)
  end
end

count('acquired')
local lease = expiry
if ARGV[10] ~= '' then
  lease = string.format('%.6f', math.min(expiry, time + tonumber(ARGV[10])))
end
redis.call('ZADD', LEASES, lease, token)
local asked = ARGV[7] ~= '' and ARGV[7] or ordered(math.floor(time * 1000))
local fence = next_fence()
redis.call('HSET', key, 'limits', group, 'task', ARGV[4], 'worker', ARGV[5],
  'since', string.format('%.6f', time), 'asked', asked, 'fence', fence)
if parked ~= '' then
  redis.call('HSET', key, 'parked_as', parked)
  redis.call('SET', begun_key(parked), token, 'EX', ARGV[9])
end
return {'granted', expiry, fence}
