-- Limits that have room again.

-- include keys

-- Note which of these limits have something filed as waiting for them: the next
-- hand-over looks at those.
local function note_freed(limits)
  for _, limit in ipairs(limits) do
    if redis.call('EXISTS', key('shut', limit)) == 1 then
      redis.call('SADD', key('freed'), limit)
    end
  end
end
