-- Waiters: how a message enters the waiting room.

-- include messages

-- Return whether a run's message is in the waiting room: 'again' if the run itself was parked or
-- rescued, 'merged' if another copy of the message waits; nil if it is not.
local function place_of(token, waiter)
  local message = read_waiter(waiter)
  if message and message.facts.run == token
    or redis.call('HEXISTS', key('token', token), 'parked') == 1
    or redis.call('HEXISTS', key('token', token), 'rescued') == 1 then
    return 'again'
  elseif message then
    return 'merged'
  end
  return nil
end

-- Let a message wait; `facts` are JSON, as for park, `expires` is '' for never. Return whether it
-- is the first of its group: then the group must be filed again.
local function file_waiter(waiter, group, ticket, facts, message, expires)
  redis.call('SET', key('waiter', waiter), facts .. '\n' .. message)
  redis.call('ZADD', key('group', group), ticket, waiter)
  redis.call('ZADD', key('names'), 0, waiter)
  if expires ~= '' then
    redis.call('ZADD', key('expiring'), expires, waiter)
  end
  local known = cjson.decode(facts)
  if known.task then
    redis.call('SADD', key('retried', known.task), waiter)
  end
  if known.newest then
    redis.call('HSET', key('newest'), work_of(known), waiter)
  end
  redis.call('HINCRBY', key('stats:counters'), 'parked:total', 1)
  return redis.call('ZRANGE', key('group', group), 0, 0)[1] == waiter
end
