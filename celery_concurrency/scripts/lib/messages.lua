-- Messages of waiters: their records, and how they go to the broker. A message here is a
-- table: its text, and the waiter's facts, which say where its queue is.

-- include bounds
-- include tokens
-- constants MESSAGE_START, PARKED

-- How a message begins that has left the waiting room.
local PLACED = MESSAGE_START .. '"' .. PARKED .. '"'

-- Return the message of a waiter, nil if there is no such waiter.
local function read_waiter(waiter)
  local record = redis.call('GET', key('waiter', waiter))
  if not record then
    return nil
  end
  local line = string.find(record, '\n', 1, true)
  local facts = cjson.decode(string.sub(record, 1, line - 1))
  if string.sub(facts.run, 1, 1) == ':' then
    -- Its task's id is not stored twice.
    facts.run = (facts.task or waiter) .. facts.run
  end
  return { facts = facts, text = string.sub(record, line + 1) }
end

-- Put the place in which a message waited into its headers, in the form that its next run gives to
-- acquire, as it leaves: until then its record and its group say it. What an older version parked has
-- it already.
local function note_place(message, ticket)
  local facts = message.facts
  if not ticket or string.sub(message.text, 1, #PLACED) == PLACED then
    return
  end
  local received = facts.newest and string.format(', "received": %.0f', facts.newest.received) or ''
  local place = string.format(': {"as": %s, "score": %.0f, "limits": %s%s}, ',
    cjson.encode(facts.as or facts.run), ticket, facts.group, received)
  message.text = PLACED .. place .. string.sub(message.text, #MESSAGE_START + 1)
end

-- Return how `newest` names a waiter's task and limits, whatever its weight.
local function work_of(facts)
  return without_weight(facts.group) .. ' ' .. facts.newest.task
end

-- Delete a waiter's record. It refused a late park while it existed; from now on a mark does.
local function forget_waiter(waiter, facts)
  mark(facts.run, 'parked')
  redis.call('DEL', key('waiter', waiter))
  redis.call('ZREM', key('expiring'), waiter)
  redis.call('ZREM', key('names'), waiter)
  leave_line(waiter, facts.group)
  if facts.task then
    redis.call('SREM', key('retried', facts.task), waiter)
  end
  if facts.newest and redis.call('HGET', key('newest'), work_of(facts)) == waiter then
    redis.call('HDEL', key('newest'), work_of(facts))
  end
end

-- Call a function in another database of this server, or in ours if `db` is nil.
local function in_database(db, home, call)
  if db then
    redis.call('SELECT', db)
  end
  call()
  if db then
    redis.call('SELECT', home)
  end
end

-- Push a message into its queue, if the broker is this server.
local function push(command, message)
  local facts = message.facts
  in_database(facts.db, facts.home, function()
    redis.call(command, facts.queue, message.text)
    if facts.queue_expires then
      redis.call('PEXPIRE', facts.queue, facts.queue_expires)
    end
  end)
end

-- Put a message into the outbox, if the broker is another server (see claim).
local function post(message)
  local number = redis.call('INCR', key('outbox:number'))
  redis.call('SET', key('outbox', number), message.text)
  redis.call('ZADD', key('outbox'), 0, number)
end

-- Put messages into their queues behind all others.
local function put_behind(messages)
  for _, message in ipairs(messages) do
    if message.facts.queue then
      push('LPUSH', message)
    else
      post(message)
    end
  end
end

-- Put messages into their queues in front of all others; the first of them is read first.
local function put_in_front(messages)
  for _, message in ipairs(messages) do
    if not message.facts.queue then
      post(message)
    end
  end
  for i = #messages, 1, -1 do
    if messages[i].facts.queue then
      push('RPUSH', messages[i])
    end
  end
end
