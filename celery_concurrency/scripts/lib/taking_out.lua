-- Taking out: how a waiter leaves the waiting room without being granted its limits.

-- include keys
-- include index
-- include messages
-- include waiters
-- constants MESSAGE_START, DISCARD

-- Take a waiter out. Return its message, or nil if it did not wait.
local function take_out(waiter)
  local message = read_waiter(waiter)
  if message then
    forget_waiter(waiter, message.facts)
    redis.call('ZREM', key('group', message.facts.group), waiter)
    file_group(message.facts.group)
  end
  return message
end

-- Take a waiter out that was found in this group: an entry without a record goes, too, as
-- somebody deleted its key by hand.
local function take_out_of(group, waiter)
  local message = take_out(waiter)
  if not message then
    redis.call('ZREM', key('group', group), waiter)
    file_group(group)
  end
  return message
end

-- Put messages back that a worker is to discard: it tells their canvas.
local function put_back_discarded(messages)
  local header = '"' .. DISCARD .. '": true, '
  for _, message in ipairs(messages) do
    message.text = MESSAGE_START .. header .. string.sub(message.text, #MESSAGE_START + 1)
  end
  put_in_front(messages)
end

-- Cancel the waiters that these messages were taken out of.
local function cancel(messages)
  if #messages > 0 then
    redis.call('HINCRBY', key('stats:counters'), 'cancelled:total', #messages)
    put_back_discarded(messages)
  end
end
