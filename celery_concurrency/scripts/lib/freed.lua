-- Limits that have room again.

-- include keys

-- Note which of these limits have something filed as waiting for them: the next
-- hand-over looks at those.
local function note_freed(limits)
  for _, limit in ipairs(limits) do
    if redis.call('EXISTS', key(SHUT, limit)) == 1 then
      redis.call('SADD', key(FREED), limit)
    end
  end
end
