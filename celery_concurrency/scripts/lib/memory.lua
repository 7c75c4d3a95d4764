-- Memory: what a call may do while the server is out of it (maxmemory, and nothing to evict).
--
-- Redis then refuses a script's first write if that may take memory, but no write after another
-- write. So it refuses a whole call before it has changed anything, or nothing of it. A call that
-- only reads is never refused.

local out_of_memory = false

-- Make sure that no write of this call is refused: for verbs that free memory, or keep what lives.
-- Call it before the first write; `out_of_memory` says whether that would have been refused.
local function never_refuse()
  if type(redis.pcall('ZADD', key('leases'), 'XX', 0, '')) == 'table' then
    out_of_memory = true
    redis.call('ZREM', key('leases'), '')
  end
end
