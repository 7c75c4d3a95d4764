-- configure: put a configuration in force, if nobody was there before.
--
-- KEYS   1 the prefix
-- ARGV   1 the version that the caller saw ('0' where there was none)
--        2 SHA-1 of the stored JSON that the caller saw ('' where there was none)
--        3 the JSON to store; '' leaves what is stored as it is: the flat copy
--          is made to follow it, or says what is wrong with it
--        4.. the flat copy's fields and values in turn
-- Reply  the new version, or 0 if another change came first; nothing is done then
-- Cost   one write a field of the flat copy
-- Again  the version moved on with the first copy, so a second one is refused.

-- SHA-1 of the stored JSON; '' where there is none, or no string.
local function digest()
  local text = redis.pcall('GET', CONFIG)
  return type(text) == 'string' and redis.sha1hex(text) or ''
end

local VERSION = prefix .. ':config:version'
if (redis.call('GET', VERSION) or '0') ~= ARGV[1] or digest() ~= ARGV[2] then
  return 0
end
if ARGV[3] ~= '' then
  redis.call('SET', CONFIG, ARGV[3])
end
redis.call('DEL', FLAT)
for i = 4, #ARGV, 2 do
  redis.call('HSET', FLAT, ARGV[i], ARGV[i + 1])
end
redis.call('HSET', FLAT, 'source', digest())
return redis.call('INCR', VERSION)
