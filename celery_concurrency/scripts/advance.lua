-- advance: continue a hand-over that takes more than one call, or begin one.
--
-- KEYS   1 the prefix
-- ARGV   1 '1' if the configuration changed: all blocked limits are checked again, in
--          as many calls as it takes
--        2 steps of the hand-over at most
-- Reply  {more, outbox}, as in release
-- Cost   the steps
-- Again  a second copy goes on where the first ended.
-- OOM    goes on, but puts no message into a queue of this server

-- include handover

never_refuse()
if ARGV[1] == '1' then
  redis.call('SET', key('recheck'), exact(time))
end
return {hand_over(tonumber(ARGV[2]))}
