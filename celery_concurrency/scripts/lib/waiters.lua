-- Waiters: how a message enters the waiting room.

-- include messages

-- Return what tells a message's work from that of another message with its id.
local function work_in(text)
  local message = cjson.decode(text)
  local body = type(message.body) == 'table' and message.body.base64 or message.body
  return tostring(message.headers.task) .. ' ' .. tostring(body)
end

-- Return whether a run's message is in the waiting room: 'again' if the run itself was parked or
-- rescued, 'merged' if another copy of the message waits; nil if it is not. Then the name under which
-- it waits: where another message with its id does, that of a task that was retried, for example.
local function place_of(token, waiter, text)
  local message = read_waiter(waiter)
  if message and message.facts.run ~= token and work_in(message.text) ~= work_in(text) then
    waiter = waiter .. ' ' .. redis.sha1hex(work_in(text))
    message = read_waiter(waiter)
  end
  if message and message.facts.run == token
    or redis.call('HEXISTS', key('token', token), 'parked') == 1
    or redis.call('HEXISTS', key('token', token), 'rescued') == 1 then
    return 'again', waiter
  elseif message then
    return 'merged', waiter
  end
  return nil, waiter
end

-- Return the facts of a waiter for its record. Under another name than its task's it is known by its
-- task's id, and a second copy of this call, or rescue, by a mark.
local function facts_under(waiter, id, facts, token)
  if waiter == id then
    return facts
  end
  mark(token, 'parked')
  return cjson.decode(facts).task and facts
    or '{"task":' .. cjson.encode(id) .. ',' .. string.sub(facts, 2)
end

-- Let a message wait; `asked` is the ticket that says since when, `facts` are JSON, as for park,
-- `expires` is '' for never. Return whether it is the first of its group: then the group must be
-- filed again.
local function file_waiter(waiter, group, ticket, asked, facts, message, expires)
  redis.call('SET', key('waiter', waiter), facts .. '\n' .. message)
  redis.call('ZADD', key('group', group), ticket, waiter)
  redis.call('ZADD', key('names'), 0, waiter)
  local known = cjson.decode(facts)
  line_up(waiter, group, asked_first(asked, known.newest and known.newest.received))
  if expires ~= '' then
    redis.call('ZADD', key('expiring'), expires, waiter)
  end
  if known.task then
    redis.call('SADD', key('retried', known.task), waiter)
  end
  if known.newest then
    redis.call('HSET', key('newest'), work_of(known), waiter)
  end
  redis.call('HINCRBY', key('stats:counters'), 'parked:total', 1)
  return redis.call('ZRANGE', key('group', group), 0, 0)[1] == waiter
end
