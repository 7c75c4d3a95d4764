-- cancel: take a task out of those who wait. Its message goes back to its queue, with
-- a mark by which a worker discards it and tells its canvas.
--
-- KEYS   1 the prefix
-- ARGV   1 the task's id   2 steps of the hand-over at most
-- Reply  {how many of its messages waited, more, outbox}
-- Cost   about 20 commands a message, of which a task has one, and the steps
-- Again  a second copy finds nothing that waits.

-- include common
-- include held
-- include orphans
-- include index
-- include handover

local waiters = redis.call('SRANDMEMBER', retried_key(ARGV[1]), 16)
waiters[#waiters + 1] = ARGV[1]
local count = 0
for _, waiter in ipairs(waiters) do
  if take_out(waiter, fronts, true) then
    count = count + 1
  end
end
if count > 0 then
  redis.call('HINCRBY', COUNTERS, 'cancelled:total', count)
end
return {count, hand_over(tonumber(ARGV[2]))}
