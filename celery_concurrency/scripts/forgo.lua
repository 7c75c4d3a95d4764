-- forgo: a message that was put back will not run, so its group needs one reservation less.
--
-- KEYS   1 the prefix
-- ARGV   1 the name under which the message was parked   2 its group
--        3 seconds for which a second copy of the message is known
--        4 steps of the hand-over at most
-- Reply  {1 if a reservation was given up, more, outbox}
-- Cost   one removal a limit, and the steps
-- Again  the message is known as ended, so a second copy does nothing.

-- include common
-- include held
-- include orphans
-- include index
-- include handover

local given = 0
if redis.call('SET', begun_key(ARGV[1]), 'ended', 'EX', ARGV[3], 'NX') then
  local token = redis.call('ZRANGE', reserved_key(ARGV[2]), 0, 0)[1]
  if token then
    set_all_free(drop(token) or {})
    given = 1
  end
end
return {given, hand_over(tonumber(ARGV[4]))}
