-- snapshot: keep a copy of the counters, one in each period, as their history.
--
-- KEYS   1 the prefix
-- ARGV   1 seconds of a period, which begin at whole multiples of them: at the full
--          minute, so that a copy says what was counted before it
--        2 how many are kept
-- Reply  1 if a copy was made, 0 if this period has one
-- Cost   one read of the counters, of which there are a few a platform and a type
-- Again  a second copy within the period does nothing; so may many workers ask.

-- include common

local HISTORY = prefix .. ':stats:history'
local last = redis.call('XREVRANGE', HISTORY, '+', '-', 'COUNT', 1)[1]
local function period(seconds)
  return math.floor(seconds / tonumber(ARGV[1]))
end
if last and period(tonumber(string.match(last[1], '^%d+')) / 1000) >= period(now()) then
  return 0
end
local counters = {}
local pairs_read = redis.call('HGETALL', COUNTERS)
for i = 1, #pairs_read, 2 do
  counters[pairs_read[i]] = pairs_read[i + 1]
end
redis.call('XADD', HISTORY, 'MAXLEN', '~', ARGV[2], '*', 'counters', cjson.encode(counters))
return 1
