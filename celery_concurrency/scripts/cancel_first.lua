-- cancel_first: take the first ones of a group out of those who wait, as cancel does.
--
-- KEYS   1 the prefix
-- ARGV   1 group   2 the place of the last one that is meant   3 how many at most
--        4 steps of the hand-over at most
-- Reply  {how many of its messages waited, more, outbox}
-- Cost   about 20 commands a message, and the steps
-- Again  a second copy takes the next ones out, none beyond the last that is meant.

-- include common
-- include held
-- include orphans
-- include index
-- include handover

local count = 0
for _, waiter in ipairs(redis.call('ZRANGEBYSCORE', group_key(ARGV[1]), '-inf',
  ARGV[2], 'LIMIT', 0, ARGV[3])) do
  if take_out(waiter, fronts, true) then
    count = count + 1
  else
    -- Somebody deleted its key by hand.
    redis.call('ZREM', group_key(ARGV[1]), waiter)
    place_group(ARGV[1])
  end
end
if count > 0 then
  redis.call('HINCRBY', COUNTERS, 'cancelled:total', count)
end
return {count, hand_over(tonumber(ARGV[4]))}
