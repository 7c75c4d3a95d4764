-- Reservations: tokens that a hand-over took for a group, for as many seconds as the waiter says
-- (`hold`, from the setting concurrency_handoff_timeout). A reservation ends when any run of the
-- group begins on it (acquire); when it is given up, because its message will not run (forgo) or
-- its limits have changed or were shut (acquire); when it lapses (sweep); or when an operator
-- releases it.

-- include freed
-- include moments
-- include places
-- include probes
-- include tokens

-- Return whether a limit was shut since it was reserved: it cools down, another run is its probe,
-- or its rate was lowered.
local function was_shut(limit, reserved, cooling)
  local rated = is_rated(limit)
  if not (cooling or rated) then
    return false
  end
  local probe = cooling and probe_of(limit)
  local own = rated and redis.call('ZSCORE', key('rate', limit), reserved)
  return probe and probe ~= reserved or shut_until(limit, own and 1 or 0) > 0
end

-- Begin on a reservation of the run's group: its tokens become the run's. Return whether there was
-- one. With `shuts`, give up a reservation whose limits were shut since.
local function begin_on_reservation(group, token, expiry, shuts, cooling)
  local reserved = redis.call('ZRANGEBYSCORE', key('reserved', group), '(' .. exact(time), '+inf',
    'LIMIT', 0, 1)[1]
  if not reserved then
    return false
  end
  local limits, weight = limits_in(group)
  for _, limit in ipairs(limits) do
    if shuts and was_shut(limit, reserved, cooling) then
      drop_token(reserved)
      note_freed(limits)
      return false
    end
  end
  for _, limit in ipairs(limits) do
    -- A limit that an operator's DEL freed stays free.
    local held = redis.call('ZREM', key('semaphore', limit),
      members_in(limit, reserved, weight))
    if held > 0 then
      redis.call('ZADD', key('semaphore', limit), until_expiry(expiry, token, held))
    end
  end
  if cooling and shuts then
    note_probe(token, limits, reserved)
  end
  note_start(token, limits, time, reserved)
  for _, limit in ipairs(limits) do
    hasten(limit)
  end
  redis.call('ZREM', key('reserved', group), reserved)
  redis.call('ZREM', key('reservations'), reserved)
  redis.call('ZREM', key('leases'), reserved)
  redis.call('DEL', key('token', reserved))
  return true
end

-- Give up one reservation of a group; return whether there was one.
local function give_up_reservation(group)
  local token = redis.call('ZRANGE', key('reserved', group), 0, 0)[1]
  if not token then
    return false
  end
  local record = drop_token(token)
  note_freed(record and record.limits or {})
  return true
end
