-- expire: take back tokens whose time is over, the longest expired first.
--
-- KEYS   1 the prefix
-- ARGV   1 how many at most   2 seconds for which each leaves a mark (see release)
-- Reply  how many were taken back; as many as asked for means there may be more
-- Cost   one removal a limit of each, at most ARGV[1] tokens
-- Again  a second copy finds those gone and takes the next; both were due.

local due = redis.call('ZRANGEBYSCORE', LEASES, '-inf', string.format('%.6f', now()),
  'LIMIT', 0, tonumber(ARGV[1]))
for _, token in ipairs(due) do
  drop(token)
  mark_ended(token, ARGV[2])
end
if #due > 0 then
  redis.call('HINCRBY', COUNTERS, 'expired:total', #due)
end
return #due
