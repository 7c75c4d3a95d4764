-- Tickets: a run's place in the order of waiters; no two are the same.

-- constants RANK

-- Return a new ticket: by rank first, then by the time at which it is taken.
local function take_ticket(rank)
  local last = tonumber(redis.call('GET', key('ticket')) or 0)
  local number = math.max(last + 1, math.floor(time * 1000))
  redis.call('SET', key('ticket'), number)
  return rank * RANK + number
end
