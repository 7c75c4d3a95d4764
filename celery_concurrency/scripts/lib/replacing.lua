-- Replacing: of the waiters of one task with the same limits that may be replaced, only the newest
-- waits, in the place of the first, even if its weight is another.

-- include taking_out

-- Cancel the waiter that a newer one replaces. Return the ticket with which that one waits: the
-- other's, its own if there is none; nil if it is itself the older one.
local function replace_older(facts, ticket)
  local other = facts.newest and redis.call('HGET', key('newest'), work_of(facts))
  local message = other and read_waiter(other)
  if not message then
    return ticket
  elseif message.facts.newest.received > facts.newest.received then
    return nil
  end
  local place = redis.call('ZSCORE', key('group', message.facts.group), other)
  redis.call('HINCRBY', key('stats:counters'), 'replaced:total', 1)
  put_back_discarded({ take_out(other) })
  return place or ticket
end
