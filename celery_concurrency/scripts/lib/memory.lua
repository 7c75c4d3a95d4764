-- Memory: what a call may do while the server is out of it (maxmemory, and nothing to evict).
--
-- Redis then refuses a script's first write, if that may take memory, and none that comes after
-- another write: it refuses a whole call, before that changed anything, or nothing of it. Who
-- only reads is never refused.

local out_of_memory = false

-- Have no write of this call refused: for verbs by which memory comes free, or what lives
-- stays. Called before the first write; then `out_of_memory` says whether it would have been refused.
local function never_refuse()
  if type(redis.pcall('ZADD', key('leases'), 'XX', 0, '')) == 'table' then
    out_of_memory = true
    redis.call('ZREM', key('leases'), '')
  end
end
