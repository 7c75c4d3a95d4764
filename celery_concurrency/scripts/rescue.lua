-- rescue: say whether a run's message was parked, if the run's process was killed before it could
-- report that. If not, that run can't park it later, and it goes back to the broker.
--
-- KEYS   1 the prefix
-- ARGV   1 token of the run   2 waiter, as in park: its name if no other message has its id
-- Reply  1 if the message was parked, else 0
-- Cost   3 commands
-- Again  a second copy finds the waiter or one of the marks, and gives the same reply.
-- OOM    done: the message goes back to the broker

-- include messages

local token, message = ARGV[1], read_waiter(ARGV[2])

-- Where another copy of it waits, that stays; this one merges with it when it is back.
if message and message.facts.run == token
  or redis.call('HEXISTS', key('token', token), 'parked') == 1 then
  return 1
end
never_refuse()
mark(token, 'rescued')
return 0
