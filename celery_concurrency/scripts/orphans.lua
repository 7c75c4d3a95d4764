-- Orphans: tokens in a limit of which nothing else is known.

-- Take out of a limit whose time is over and whom no lease knows: somebody deleted keys
-- by hand, or Redis evicted them. A few of them, whose room is for those who wait; whether
-- there were any.
local function drop_orphans(limit, time)
  local found = false
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', semaphore_key(limit), '-inf',
    string.format('%.6f', time), 'LIMIT', 0, 8)) do
    if not redis.call('ZSCORE', LEASES, token) then
      redis.call('ZREM', semaphore_key(limit), token)
      found = true
    end
  end
  if found then
    set_free(limit)
  end
  return found
end
