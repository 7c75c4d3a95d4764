-- Tokens: how a token leaves its limits, and what stays of it.

-- include groups
-- include places when members_in is called
-- include moments when take_start_back is called
-- include observe when observe_end is called

-- How many records of ended runs are kept at most, if nobody counts them (see tally).
local ENDED_MOST = 20000

-- How long a mark refuses late copies of a call: far longer than any client keeps trying.
local MARK_SECONDS = 600

-- Take a token out of each of its limits, one removal per limit. Return what an end needs of its
-- record (group: its limits and weight as JSON), nil if nobody holds it. If it is a reservation, or
-- with `unbegun`, no run began on it, so its start does not count.
local function drop_token(token, unbegun)
  local record = redis.call('HMGET', key('token', token), 'limits', 'asked', 'since',
    'parked_as', 'reserved', 'observed')
  redis.call('ZREM', key('leases'), token)
  local group, reserved = record[1], record[5]
  if not group then
    return nil
  end
  local limits, weight = limits_in(group)
  for _, limit in ipairs(limits) do
    if weight == 1 then
      redis.call('ZREM', key('semaphore', limit), token)
    else
      redis.call('ZREM', key('semaphore', limit), members_in(limit, token, weight))
    end
  end
  if reserved or unbegun then
    take_start_back(token, limits)
  end
  if reserved then
    redis.call('ZREM', key('reserved', group), token)
    redis.call('ZREM', key('reservations'), token)
  end
  -- Keep the marks that refuse late calls.
  redis.call('HDEL', key('token', token), 'limits', 'task', 'worker', 'since', 'asked', 'fence',
    'reserved', 'parked_as', 'observed')
  if record[6] then
    observe_end(token, limits, record[3], unbegun)
  end
  return { limits = limits, group = group, asked = record[2], since = record[3],
    parked_as = record[4], reserved = reserved }
end

-- Leave a record of a run that ended for tally to count: counting here would cost every run.
local function note_end(record)
  if record.asked and record.since then
    local line = record.asked .. ' ' .. record.since .. ' ' .. time .. ' ' .. record.group
    if redis.call('RPUSH', key('stats:ended'), line) > ENDED_MOST then
      redis.call('LPOP', key('stats:ended'))
    end
  end
end

-- Leave a mark that refuses late calls: `ended` and `taken` (back) an acquire, `parked` and
-- `rescued` a park.
local function mark(token, what)
  redis.call('HSET', key('token', token), what, 1)
  redis.call('EXPIRE', key('token', token), MARK_SECONDS)
end
