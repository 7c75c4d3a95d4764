-- forgo: give up one reservation of a group, because a message that was put back will not run.
--
-- KEYS   1 the prefix
-- ARGV   1 the name under which the message was parked   2 its group
--        3 seconds for which a second copy of the message is recognized
--        4 steps of the hand-over at most
-- Reply  {1 if a reservation was given up, more, outbox}
-- Cost   one removal per limit, and the steps
-- Again  the message is recorded as ended, so a second copy does nothing.
-- OOM    done; the hand-over as in advance

-- include reservations
-- include handover

never_refuse()
local is_new = redis.call('SET', key('begun', ARGV[1]), 'ended', 'EX', ARGV[3], 'NX')
local given_up = is_new and give_up_reservation(ARGV[2])
return {given_up and 1 or 0, hand_over(tonumber(ARGV[4]))}
