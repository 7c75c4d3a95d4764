-- rescue: say whether the message of a run has a place, whose process was killed before it
-- told so; if not, it never gets one by that run, and goes back to the broker.
--
-- KEYS   1 the prefix
-- ARGV   1 token of the run   2 waiter, as in park
-- Reply  1 if the message has a place, else 0
-- Cost   3 commands
-- Again  a second copy finds the waiter, or one of the marks, and replies the same.
-- OOM    done: the message goes back to the broker

-- include messages

local token = ARGV[1]

if read_waiter(ARGV[2]) or redis.call('HEXISTS', key('token', token), 'parked') == 1 then
  return 1
end
never_refuse()
mark(token, 'rescued')
return 0
