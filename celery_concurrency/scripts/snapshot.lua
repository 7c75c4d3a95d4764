-- snapshot: keep a copy of the counters, once a period, as their history.
--
-- KEYS   1 the prefix
-- ARGV   1 seconds between two copies   2 how many are kept
-- Reply  1 if a copy was made, 0 if the last one is too young
-- Cost   one read of the counters, of which there are a few a platform and a type
-- Again  a second copy within the period does nothing; so may many workers ask.

-- include common

local HISTORY = prefix .. ':stats:history'
local last = redis.call('XREVRANGE', HISTORY, '+', '-', 'COUNT', 1)[1]
if last and now() - tonumber(string.match(last[1], '^%d+')) / 1000 < tonumber(ARGV[1]) then
  return 0
end
local counters = {}
local pairs_read = redis.call('HGETALL', COUNTERS)
for i = 1, #pairs_read, 2 do
  counters[pairs_read[i]] = pairs_read[i + 1]
end
redis.call('XADD', HISTORY, 'MAXLEN', '~', ARGV[2], '*', 'counters', cjson.encode(counters))
return 1
