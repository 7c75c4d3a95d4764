-- renew: record that a process lives, and renew the tokens of the runs that live in it.
--
-- KEYS   1 the prefix
-- ARGV   1 the epoch that the process knows, '' if it knows none
--        2 seconds after which the tokens are taken back unless they are renewed
--        3 the worker's name, '' if the process is not one   4 what it says of itself, as JSON
--        5.. in turn: a token, and its facts from an earlier reply ('' for none)
-- Reply  {epoch, verdict, verdict, ...}, one per token: if it is held its facts as JSON,
--        or 'held' if the caller has them; 'lost' if it was taken back; 'gone' if nobody
--        holds it; {} if there is no configuration yet
-- Cost   2 commands for a worker; 2 per token, and one more per limit once in a third of its
--        lease, or each time if it has less than SHORTEST_LEASE left
-- Again  a second copy renews what was just renewed, or finds that the token was released. If it
--        comes after its worker's end, the worker is listed as silent until a sweep removes it.
-- OOM    done: living runs keep their tokens

-- include places
-- include moments when note_start is called
-- constants SHORTEST_LEASE

local epoch = redis.call('GET', key('epoch'))
local timeout = tonumber(redis.call('HGET', key('config:flat'), 'timeout'))
if not epoch or not timeout then
  return {}
end
timeout = math.max(timeout, SHORTEST_LEASE)
local lease = math.min(timeout, tonumber(ARGV[2]))
local FACTS = {'limits', 'task', 'worker', 'since', 'asked', 'fence', 'parked_as'}

-- Extend a token's lease and expiry. A limit that an operator's DEL freed stays free.
local function extend(token, limits, weight)
  redis.call('ZADD', key('leases'), exact(time + lease), token)
  for _, limit in ipairs(limits) do
    redis.call('ZADD', key('semaphore', limit), 'XX',
      until_expiry(math.ceil(time + timeout), token, places_in(limit, weight)))
  end
end

-- Restore the tokens that a run held when the data was lost.
local function restore(token, json)
  local facts = cjson.decode(json)
  for field, value in pairs(facts) do
    redis.call('HSET', key('token', token), field, value)
  end
  local limits, weight = limits_in(facts.limits)
  for _, limit in ipairs(limits) do
    redis.call('ZADD', key('semaphore', limit),
      until_expiry(0, token, places_in(limit, weight)))
  end
  note_start(token, limits, tonumber(facts.since))
  extend(token, limits, weight)
end

local function facts_of(token)
  local facts, values = {}, redis.call('HMGET', key('token', token), unpack(FACTS))
  for i, field in ipairs(FACTS) do
    facts[field] = values[i] or nil
  end
  return cjson.encode(facts)
end

local function renew(token, known)
  local limits, taken, ended = unpack(redis.call('HMGET', key('token', token), 'limits', 'taken',
    'ended'))
  if limits then
    local left = tonumber(redis.call('ZSCORE', key('leases'), token) or 0) - time
    if left < math.max(lease * 2 / 3, SHORTEST_LEASE) then
      extend(token, limits_in(limits))
    end
    return known ~= '' and 'held' or facts_of(token)
  elseif taken then
    if redis.call('HSETNX', key('token', token), 'told', 1) == 1 then
      redis.call('HINCRBY', key('stats:counters'), 'lost:total', 1)
    end
    return 'lost'
  elseif known ~= '' and not ended and ARGV[1] ~= '' and ARGV[1] ~= epoch then
    restore(token, known)
    return 'held'
  end
  return 'gone'
end

never_refuse()
if ARGV[3] ~= '' then
  redis.call('ZADD', key('workers'), exact(time + lease), ARGV[3])
  redis.call('HSET', key('worker', ARGV[3]), 'heard', exact(time), 'facts', ARGV[4])
end
local reply = {epoch}
for i = 5, #ARGV, 2 do
  reply[#reply + 1] = renew(ARGV[i], ARGV[i + 1])
end
return reply
