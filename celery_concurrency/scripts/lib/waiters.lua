-- Waiters: the record of a parked message, and how it is taken out of the waiting room.

-- include keys
-- include tokens
-- include index
-- include messages
-- constants OPENING, DISCARD

-- Return a waiter's message: its text, and the facts that park was given. Return nil if
-- there is no such waiter.
local function read_waiter(waiter)
  local record = redis.call('GET', key(WAITER, waiter))
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
  redis.call('DEL', key(WAITER, waiter))
  redis.call('ZREM', key(EXPIRING), waiter)
  if facts.task then
    redis.call('SREM', key(RETRIED, facts.task), waiter)
  end
end

-- Take a waiter out. Return its message, or nil if it did not wait.
local function take_out(waiter)
  local message = read_waiter(waiter)
  if message then
    forget_waiter(waiter, message.facts)
    redis.call('ZREM', key(GROUP, message.facts.group), waiter)
    file_group(message.facts.group)
  end
  return message
end

-- Take a waiter out that was found in this group: an entry without a record goes, too, as
-- somebody deleted its key by hand.
local function take_out_of(group, waiter)
  local message = take_out(waiter)
  if not message then
    redis.call('ZREM', key(GROUP, group), waiter)
    file_group(group)
  end
  return message
end

-- Put messages back that a worker is to discard: it tells their canvas.
local function put_back_discarded(messages)
  local header = '"' .. DISCARD .. '": true, '
  for _, message in ipairs(messages) do
    message.text = OPENING .. header .. string.sub(message.text, #OPENING + 1)
  end
  put_in_front(messages)
end

-- Cancel the waiters that these messages were taken out of.
local function cancel(messages)
  if #messages > 0 then
    redis.call('HINCRBY', key(COUNTERS), 'cancelled:total', #messages)
    put_back_discarded(messages)
  end
end
