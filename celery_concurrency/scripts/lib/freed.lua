-- Freed: limits that have room again.

-- include places

-- Note which of these limits have waiters filed under them: the next hand-over looks at those.
local function note_freed(limits)
  for _, limit in ipairs(limits) do
    if redis.call('EXISTS', key('shut', limit), key('weights', limit)) > 0 then
      redis.call('SADD', key('freed'), limit)
    end
  end
end

-- Remove a few orphans whose time is over from a limit; return whether there were any. An
-- orphan is a token of which nothing else is known: somebody deleted keys by hand, or
-- Redis evicted them.
local function drop_orphans(limit)
  local found = false
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key('semaphore', limit), '-inf', time,
    'LIMIT', 0, 8)) do
    if not redis.call('ZSCORE', key('leases'), token_of(member)) then
      redis.call('ZREM', key('semaphore', limit), member)
      found = true
    end
  end
  if found then
    note_freed({ limit })
  end
  return found
end
