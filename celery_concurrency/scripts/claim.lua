-- claim: take messages out of the outbox to send them to the broker, for a time.
--
-- KEYS   1 the prefix
-- ARGV   1 how many at most   2 seconds after which somebody else may take them,
--          unless they were confirmed (see confirm) by then
-- Reply  a list: number, message, number, message, ...
-- Cost   two commands a message
-- Again  a second copy takes others; what the first took comes again after the time.

-- include common

local time = now()
local claimed = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', OUTBOX, '-inf', string.format('%.6f', time),
  'LIMIT', 0, tonumber(ARGV[1]))) do
  redis.call('ZADD', OUTBOX, string.format('%.6f', time + tonumber(ARGV[2])), number)
  claimed[#claimed + 1] = number
  claimed[#claimed + 1] = redis.call('GET', OUTBOX .. ':' .. number) or ''
end
return claimed
