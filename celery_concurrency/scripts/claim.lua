-- claim: take messages out of the outbox for a time, to send them to the broker.
--
-- KEYS   1 the prefix
-- ARGV   1 how many at most   2 seconds after which another process may take them,
--          unless they were confirmed (see confirm) by then
-- Reply  a list: number, message, number, message, ...
-- Cost   two commands a message
-- Again  a second copy takes other messages; those of the first are offered again after the time.
-- OOM    done: sending messages frees memory

never_refuse()
local claimed = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', key('outbox'), '-inf', time,
  'LIMIT', 0, tonumber(ARGV[1]))) do
  redis.call('ZADD', key('outbox'), exact(time + tonumber(ARGV[2])), number)
  claimed[#claimed + 1] = number
  claimed[#claimed + 1] = redis.call('GET', key('outbox', number)) or ''
end
return claimed
