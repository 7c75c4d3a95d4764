-- Taking out: how a waiter leaves the waiting room without being granted its limits.

-- include index
-- include messages
-- constants DISCARD

-- Take a waiter out. Return its message, nil if it did not wait. If it was found in this group but
-- somebody deleted its record by hand, remove its entry.
local function take_out(waiter, group)
  local message = read_waiter(waiter)
  if message then
    forget_waiter(waiter, message.facts)
    group = message.facts.group
    note_place(message, redis.call('ZSCORE', key('group', group), waiter))
  end
  if group then
    redis.call('ZREM', key('group', group), waiter)
    redis.call('ZREM', key('names'), waiter)
    if not message then
      leave_line(waiter, group)
    end
    file_group(group)
  end
  return message
end

local function put_in_header(message, name, value)
  local header = '"' .. name .. '": ' .. value .. ', '
  message.text = MESSAGE_START .. header .. string.sub(message.text, #MESSAGE_START + 1)
end

-- Put messages back for a worker to discard, which tells their canvas.
local function put_back_discarded(messages)
  for _, message in ipairs(messages) do
    put_in_header(message, DISCARD, 'true')
  end
  put_in_front(messages)
end

-- Cancel the waiters that had these messages.
local function cancel(messages)
  if #messages > 0 then
    redis.call('HINCRBY', key('stats:counters'), 'cancelled:total', #messages)
    put_back_discarded(messages)
  end
end
