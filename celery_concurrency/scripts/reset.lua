-- reset: put an adaptive limit back to its highest maximum, and hand over the room.
--
-- KEYS   1 the prefix
-- ARGV   1 limit
--        2 when it last moved, as the caller read it
--        3 the reason
--        4 steps of the hand-over at most
-- Reply  {1 if it moved; 0 if it moved in between, or was already there, more, outbox}
-- Cost   about 12 commands, and the steps
-- Again  a second copy finds that it has moved, and does nothing.
-- OOM    refused

-- include adaptive
-- include handover

local limit = ARGV[1]
local entry = entry_of(limit)
-- A state left by an earlier entry has another name: then state_of returns the highest.
if not entry or (redis.call('HGET', key('adaptive', limit), 'since') or '') ~= ARGV[2] then
  return {0, 0, 0}
end
local before = state_of(limit, entry)
if before == entry.max then
  return {0, 0, 0}
end
store(limit, entry, entry.max)
note_move(limit, before, entry.max, ARGV[3])
note_freed({ limit })
return {1, hand_over(tonumber(ARGV[4]))}
