-- cancel: take a task out of the waiting room. Its message goes back to its queue with a mark
-- that tells a worker to discard it.
--
-- KEYS   1 the prefix
-- ARGV   1 the task's id   2 steps of the hand-over at most
-- Reply  {how many of its messages waited, more, outbox}
-- Cost   about 20 commands a message, of which a task has one, and the steps
-- Again  a second copy finds nothing that waits.
-- OOM    done: a worker that takes the message frees it

-- include taking_out
-- include handover

never_refuse()
local waiters = redis.call('SRANDMEMBER', key('retried', ARGV[1]), 16)
waiters[#waiters + 1] = ARGV[1]
local messages = {}
for _, waiter in ipairs(waiters) do
  messages[#messages + 1] = take_out(waiter)
end
cancel(messages)
return {#messages, hand_over(tonumber(ARGV[2]))}
