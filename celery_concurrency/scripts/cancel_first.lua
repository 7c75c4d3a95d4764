-- cancel_first: take the first waiters of a group out of the waiting room, as cancel does.
--
-- KEYS   1 the prefix
-- ARGV   1 group   2 the ticket of the last waiter to take out   3 how many at most
--        4 steps of the hand-over at most
-- Reply  {how many of its messages waited, more, outbox}
-- Cost   about 20 commands a message, and the steps
-- Again  a second copy takes out the next waiters, but none after the last ticket.
-- OOM    done, as in cancel

-- include taking_out
-- include handover

never_refuse()
local group = ARGV[1]
local messages = {}
for _, waiter in ipairs(redis.call('ZRANGEBYSCORE', key('group', group), '-inf', ARGV[2],
  'LIMIT', 0, ARGV[3])) do
  messages[#messages + 1] = take_out(waiter, group)
end
cancel(messages)
return {#messages, hand_over(tonumber(ARGV[4]))}
