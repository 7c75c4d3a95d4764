-- Freed: limits that have room again.

-- Note which of these limits have waiters filed under them: the next hand-over looks at those.
local function note_freed(limits)
  for _, limit in ipairs(limits) do
    if redis.call('EXISTS', key('shut', limit)) == 1 then
      redis.call('SADD', key('freed'), limit)
    end
  end
end

-- Remove a few orphans whose time is over from a limit; return whether there were any. An
-- orphan is a token of which nothing else is known: somebody deleted keys by hand, or
-- Redis evicted them.
local function drop_orphans(limit)
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
