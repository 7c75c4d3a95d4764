-- acquire: give a run a token in each of its limits, or in none of them.
--
-- KEYS   1 the prefix
-- ARGV   1 token: the run's id, which begins with its task's id
--        2 the names of the user's own dimensions, as the caller knows them
--        3 limits, a JSON list: ["global", "platform:douyin", ...]
--        4 the task's name   5 the worker's name, both for those who look
-- Reply  {'granted', expiry}           the token is held until expiry
--        {'denied', limit, held, max}  the first limit without room; max -1: paused
--        {'ended'}                     the run was given up before this call came,
--                                      or its time is over
--        {'dimensions', names}         argument 2 is out of date; nothing was done
--        {'unconfigured'}              no flat configuration; nothing was done
-- Cost   about 4 commands a limit; nothing grows with holders or configuration,
--        but for the logarithm in a sorted set.
-- Again  a second copy finds the token held and repeats the grant; one that comes
--        after the run was given up or expired finds the mark that release and
--        expire leave; a denial leaves no trace.

local token = ARGV[1]
local key = token_key(token)
local time = now()

local limits = cjson.decode(ARGV[3])
local fields = {'enabled', 'timeout', 'dimensions'}
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
    return {'granted', expiry}
  end
  return {'ended'}
end

if config[1] == '1' then
  for i, limit in ipairs(limits) do
    local max = tonumber(config[2 + 2 * i] or config[3 + 2 * i] or 0)
    if max ~= 0 then
      local semaphore = semaphore_key(limit)
      local held = redis.call('ZCARD', semaphore)
      if held >= max then
        -- Who expired is still in the set until the next sweep, and counts no more.
        held = redis.call('ZCOUNT', semaphore, string.format('(%.6f', time), '+inf')
        if held >= max then
          return {'denied', limit, held, max}
        end
      end
    end
  end
end

-- Whole seconds, rounded up: what redis-cli shows is what the seed's diagram shows.
local expiry = math.ceil(time + tonumber(config[2]))
redis.call('HINCRBY', COUNTERS, 'acquired:total', 1)
for _, limit in ipairs(limits) do
  redis.call('ZADD', semaphore_key(limit), expiry, token)
  if string.find(limit, 'platform:', 1, true) == 1 or string.find(limit, 'task_type:', 1, true) == 1 then
    redis.call('HINCRBY', COUNTERS, 'acquired:' .. limit, 1)
  end
end
redis.call('ZADD', LEASES, expiry, token)
redis.call('HSET', key, 'limits', ARGV[3], 'task', ARGV[4], 'worker', ARGV[5],
  'since', string.format('%.6f', time))
return {'granted', expiry}
