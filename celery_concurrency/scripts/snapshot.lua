-- snapshot: store a copy of the counters, one in each period, as their history.
--
-- KEYS   1 the prefix
-- ARGV   1 seconds of a period; periods begin at whole multiples of them, at the full
--          minute, so that a copy says what was counted before it
--        2 how many copies are stored
-- Reply  1 if a copy was made, 0 if this period has one
-- Cost   one read of the counters, of which there are a few a platform and a type
-- Again  a second copy within the period does nothing, nor does another worker's call.
-- OOM    refused

local function period_of(seconds)
  return math.floor(seconds / tonumber(ARGV[1]))
end

local last = redis.call('XREVRANGE', key('stats:history'), '+', '-', 'COUNT', 1)[1]
if last and period_of(tonumber(string.match(last[1], '^%d+')) / 1000) >= period_of(time) then
  return 0
end
local counters = {}
local pairs_read = redis.call('HGETALL', key('stats:counters'))
for i = 1, #pairs_read, 2 do
  counters[pairs_read[i]] = pairs_read[i + 1]
end
redis.call('XADD', key('stats:history'), 'MAXLEN', '~', ARGV[2], '*',
  'counters', cjson.encode(counters))
return 1
