-- Waiters: the records of parked messages.

-- include keys
-- include tokens

-- Return a waiter's message: its text, and the facts that park was given. Return nil if
-- there is no such waiter.
local function read_waiter(waiter)
  local record = redis.call('GET', key('waiter', waiter))
  if not record then
    return nil
  end
  local line = string.find(record, '\n', 1, true)
  return { facts = cjson.decode(string.sub(record, 1, line - 1)),
    text = string.sub(record, line + 1) }
end

-- Delete a waiter's record. While there was one it refused a late park; now a mark does.
local function forget_waiter(waiter, facts)
  mark(facts.run, 'parked')
  redis.call('DEL', key('waiter', waiter))
  redis.call('ZREM', key('expiring'), waiter)
  if facts.task then
    redis.call('SREM', key('retried', facts.task), waiter)
  end
end
