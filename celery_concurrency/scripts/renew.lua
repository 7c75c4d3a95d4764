-- renew: a process says which runs live in it, so that their tokens stay theirs.
--
-- KEYS   1 the prefix
-- ARGV   1 the epoch that the process knows, '' where it knows none
--        2 seconds after which the tokens are taken back if nobody renews them
--        3.. in turn: a token, and what an earlier reply said of it ('' for nothing)
-- Reply  {epoch, verdict, verdict, ...}, one a token: its facts where it is held (as
--        JSON, if the caller has none, else 'held'); 'lost' if it was taken back;
--        'gone' if nobody holds it; {} where the configuration is not there yet
-- Cost   2 commands a token, and once in a third of its time one more a limit; each time
--        where it has less than SHORTEST_LEASE left
-- Again  a second copy renews what was just renewed, which costs a look. One that
--        comes late finds the token given back, or renews what the next beat would.

-- include common

local time = now()
local epoch = redis.call('GET', EPOCH)
local timeout = tonumber(redis.call('HGET', FLAT, 'timeout'))
if not epoch or not timeout then
  return {}
end
timeout = math.max(timeout, SHORTEST_LEASE)
local lease = math.min(timeout, tonumber(ARGV[2]))
local FACTS = {'limits', 'task', 'worker', 'since', 'asked', 'fence', 'parked_as'}

-- Note when a token expires now; in its semaphores only where it still is, unless `whole`.
local function extend(token, limits, whole)
  redis.call('ZADD', LEASES, string.format('%.6f', time + lease), token)
  for _, limit in ipairs(limits) do
    if whole then
      redis.call('ZADD', semaphore_key(limit), math.ceil(time + timeout), token)
    else
      -- What an operator's DEL freed stays free.
      redis.call('ZADD', semaphore_key(limit), 'XX', math.ceil(time + timeout), token)
    end
  end
end

-- What a run held when the data was lost it holds again.
local function restore(token, json)
  local facts = cjson.decode(json)
  for field, value in pairs(facts) do
    redis.call('HSET', token_key(token), field, value)
  end
  extend(token, cjson.decode(facts.limits), true)
end

local function facts_of(token)
  local facts, values = {}, redis.call('HMGET', token_key(token), unpack(FACTS))
  for i, field in ipairs(FACTS) do
    facts[field] = values[i] or nil
  end
  return cjson.encode(facts)
end

local function renew(token, known)
  local state = redis.call('HMGET', token_key(token), 'limits', 'taken', 'ended')
  if state[1] then
    local until_then = tonumber(redis.call('ZSCORE', LEASES, token) or 0)
    if until_then - time < math.max(lease * 2 / 3, SHORTEST_LEASE) then
      extend(token, cjson.decode(state[1]), false)
    end
    return known ~= '' and 'held' or facts_of(token)
  elseif state[2] then
    if redis.call('HSETNX', token_key(token), 'told', 1) == 1 then
      redis.call('HINCRBY', COUNTERS, 'lost:total', 1)
    end
    return 'lost'
  elseif known ~= '' and not state[3] and ARGV[1] ~= '' and ARGV[1] ~= epoch then
    restore(token, known)
    return 'held'
  end
  return 'gone'
end

local reply = {epoch}
for i = 3, #ARGV, 2 do
  reply[#reply + 1] = renew(ARGV[i], ARGV[i + 1])
end
return reply
