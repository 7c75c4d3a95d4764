-- Orphans: tokens in a limit of which nothing else is known, as somebody deleted keys by
-- hand, or Redis evicted them.

-- include keys
-- include freed

-- Take a few orphans whose time is over out of a limit; return whether there were any.
local function drop_orphans(limit, time)
  local found = false
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', key('semaphore', limit), '-inf', time,
    'LIMIT', 0, 8)) do
    if not redis.call('ZSCORE', key('leases'), token) then
      redis.call('ZREM', key('semaphore', limit), token)
      found = true
    end
  end
  if found then
    note_freed({ limit })
  end
  return found
end
