-- acquire: give a run a token in each of its limits, or in none of them.
--
-- KEYS   1 the prefix
-- ARGV   1 token: the run's id, which begins with its task's id
--        2 group: its limits, as the JSON list that names those who wait with the same
--        3 what many runs have in common, a JSON object that a caller makes once:
--            wildcards: of each limit, the one that sets its maximum where nothing else
--              does: ["global:*", "platform:*", ...]
--            counted: those of its limits that have counters, by platform and by task type
--            dimensions: the names of the user's own as the caller knows them, one text
--            task, worker: their names, for those who look
--            rank: 0 for the highest priority, each lower one 1 more; 255 at most
--            copies: seconds for which a second copy of a parked message is known
--            lease: seconds after which the token is taken back if nobody renews it;
--              not there where its expiry alone counts
--            begun: true to be counted whether there is room or not: the run has begun
--        4 '', or where its message waited before, a JSON object:
--            place: in the order of those who wait, as text
--            parked_as: the name under which it was parked, '' if it never was
--            group: that it waited in, if that is another one
-- Reply  {'granted', expiry, fence}    the token is held until expiry; fence is a
--                                      number that only grows
--        {'denied', limit, held, max, place}  the first limit without room; max -1:
--                                      paused. place orders those who wait
--        {'behind', limit, place}      there may be room, for others who came before
--        {'ended'}                     the run was given up before this call came,
--                                      or its time is over
--        {'running', token}            another run has begun on the same message
--        {'done'}                      and has ended: this copy is one too many
--        {'dimensions', names}         dimensions is out of date; nothing was done
--        {'unconfigured'}              no flat configuration; nothing was done
-- Cost   about 4 commands a limit, a denial one for each that is counted; nothing grows
--        with holders, waiters or configuration, but for the logarithm in a sorted set
-- Again  a second copy finds the token held and repeats the grant; one that comes
--        after the run was given up or expired finds the mark that release and
--        sweep leave; a denial leaves nothing but a number used up, gives up a
--        reservation that is of no use to anybody, and is counted as often as it is
--        answered.

-- include common

local token, group = ARGV[1], ARGV[2]
local run = cjson.decode(ARGV[3])
local limits, wildcards = cjson.decode(group), run.wildcards
local key = token_key(token)
local time = now()

local fields, semaphores = {'enabled', 'timeout', 'dimensions', 'opens'}, {}
for i = 1, #limits do
  fields[3 + 2 * i], fields[4 + 2 * i] = limits[i], wildcards[i]
  semaphores[i] = semaphore_key(limits[i])
end
local config = redis.call('HMGET', FLAT, unpack(fields))
if not config[3] then
  return {'unconfigured'}
elseif config[3] ~= run.dimensions then
  return {'dimensions', config[3]}
end

-- One look for both: most of the time this call is no copy, and nobody waits.
local others = redis.call('EXISTS', key, GROUPS) > 0
if others and redis.call('EXISTS', key) == 1 then
  -- Held, or ended. One whose time is over has ended too, swept or not.
  local expiry = tonumber(redis.call('ZSCORE', LEASES, token) or 0)
  if expiry > time then
    return {'granted', math.ceil(expiry), tonumber(redis.call('HGET', key, 'fence'))}
  end
  return {'ended'}
end

-- Whole seconds, rounded up: what redis-cli shows is what the seed's diagram shows.
local timeout = tonumber(config[2])
local expiry = math.ceil(time + (run.lease and math.max(timeout, SHORTEST_LEASE) or timeout))

local waited = ARGV[4] ~= '' and cjson.decode(ARGV[4])
local parked = waited and waited.parked_as ~= ''
local reserved = false
if parked then
  -- Here, and not above: most runs never waited, and need not make these functions.
  -- include held
  local begun = redis.call('GET', begun_key(waited.parked_as))
  if begun == 'ended' then
    return {'done'}
  elseif begun and tonumber(redis.call('ZSCORE', LEASES, begun) or 0) > time then
    return {'running', begun}
  end
  -- Its limits have changed since its message waited: a reservation of those is of no use.
  -- What it frees is for those who wait, this run among them.
  local useless = waited.group and redis.call('ZRANGE', reserved_key(waited.group), 0, 0)[1]
  for _, limit in ipairs(useless and drop(useless) or {}) do
    set_free(limit)
  end
  -- Take over a reservation of its group, whichever: what an operator's DEL freed stays free.
  reserved = redis.call('ZRANGEBYSCORE', reserved_key(group), string.format('(%.6f', time),
    '+inf', 'LIMIT', 0, 1)[1]
  if reserved then
    for i = 1, #limits do
      if redis.call('ZREM', semaphores[i], reserved) == 1 then
        redis.call('ZADD', semaphores[i], expiry, token)
      end
    end
    unreserve(group, reserved)
    redis.call('ZREM', LEASES, reserved)
    redis.call('DEL', token_key(reserved))
  end
end

-- Those who wait are ordered by priority, then by the time at which they asked: 43 bits
-- for that, so that rank and time fit a double exactly.
local asked = waited and waited.place or run.rank * RANK + math.floor(time * 1000)

-- Return the place of this run in that order, which nobody else has.
local function place()
  if waited then
    return waited.place
  end
  local ticket = math.max(tonumber(redis.call('GET', prefix .. ':ticket') or 0) + 1,
    math.floor(time * 1000))
  redis.call('SET', prefix .. ':ticket', ticket)
  return run.rank * RANK + ticket
end

-- Return why the run has to wait: nil if it need not.
local function refusal()
  if run.begun then
    return nil
  elseif time < tonumber(config[4]) then
    -- The data was lost: first those who live say what they hold.
    return {'behind', 'global', place()}
  elseif config[1] ~= '1' then
    return nil
  end
  local in_steps
  -- Those who can go on are not all through: where they and this run count in a limit
  -- together that many groups share, its room is theirs.
  local under_way = others and redis.call('EXISTS', prefix .. ':open') == 1
  for i = 1, #limits do
    local max = tonumber(config[3 + 2 * i] or config[4 + 2 * i] or 0)
    if max ~= 0 then
      -- Who expired counts until a sweep takes it back: that alone can tell a dead run
      -- from a time in which nobody could renew anything.
      local held = redis.call('ZCARD', semaphores[i])
      if held >= max then
        -- include orphans
        if drop_orphans(limits[i], time) then
          held = redis.call('ZCARD', semaphores[i])
        end
      end
      if held >= max then
        return {'denied', limits[i], held, max, place()}
      elseif under_way and not in_steps and (limits[i] == 'global' or is_shared(limits[i])) then
        in_steps = limits[i]
      end
    end
  end
  if in_steps then
    return {'behind', in_steps, place()}
  end
  for i = 1, others and #limits or 0 do
    if redis.call('SISMEMBER', FREED, limits[i]) == 1 then
      return {'behind', limits[i], place()}
    end
  end
  if others and redis.call('EXISTS', group_key(group)) == 1 then
    return {'behind', limits[#limits], place()}
  end
  return nil
end

-- Count what became of this call: in all, by platform and by task type; never by account.
local function count(what)
  redis.call('HINCRBY', COUNTERS, what .. 'total', 1)
  for i = 1, #run.counted do
    redis.call('HINCRBY', COUNTERS, what .. run.counted[i], 1)
  end
end

if not reserved then
  local refused = refusal()
  if refused then
    count('denied:')
    return refused
  end
  for i = 1, #limits do
    redis.call('ZADD', semaphores[i], expiry, token)
  end
end
count('acquired:')
redis.call('ZADD', LEASES, run.lease and math.min(expiry, time + run.lease) or expiry, token)

-- A number that no acquisition had before: the server's microseconds, or one more than the
-- last where its clock went back. Lost data can't make it smaller.
local fence = math.floor(time * 1000000 + 0.5)
local last = redis.call('SET', prefix .. ':fence', fence, 'GET')
if last and tonumber(last) >= fence then
  fence = tonumber(last) + 1
  redis.call('SET', prefix .. ':fence', fence)
end

redis.call('HSET', key, 'limits', group, 'task', run.task, 'worker', run.worker,
  'since', string.format('%.6f', time), 'asked', asked, 'fence', fence)
if parked then
  redis.call('HSET', key, 'parked_as', waited.parked_as)
  redis.call('SET', begun_key(waited.parked_as), token, 'EX', run.copies)
end
return {'granted', expiry, fence}
