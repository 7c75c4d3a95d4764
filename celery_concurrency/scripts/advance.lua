-- advance: go on with a hand-over that took more than one call, or begin one.
--
-- KEYS   1 the prefix
-- ARGV   1 '1' if the configuration changed: every limit that something waits for is
--          looked at again, in as many calls as it takes
--        2 steps of the hand-over at most
-- Reply  {more, outbox}, as in release
-- Cost   the steps
-- Again  a second copy goes on where the first has ended.

-- include common
-- include held
-- include orphans
-- include index
-- include handover

if ARGV[1] == '1' then
  redis.call('SET', RECHECK, string.format('%.6f', time))
end
return {hand_over(tonumber(ARGV[2]))}
