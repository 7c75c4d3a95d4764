-- cool: let a limit admit nobody for a while, or lift that. What runs goes on.
--
-- KEYS   1 the prefix
-- ARGV   1 limit   2 seconds; 0 lifts its cool-down
--        3 a name of this call that no other has
--        4 its reason, and 5 who says so ('' where nobody did)
--        6 steps of the hand-over at most
-- Reply  {until when it cools down, as text, or would have, if that was lifted; '' if it did
--        not, more, outbox}
-- Cost   about 8 commands, and the steps
-- Again  a second copy finds the reply to the first, for ten minutes, and changes nothing.
-- OOM    refused, unless it lifts

-- include handover

local limit, seconds, call = ARGV[1], tonumber(ARGV[2]), key('cooled', ARGV[3])
local replied = redis.call('GET', call)
if replied then
  return {replied, 0, 0}
end

local record = key('cooldown', limit)
local current = tonumber(redis.call('ZSCORE', key('cooldowns'), limit) or 0)

if seconds == 0 then
  never_refuse()
  local lifted = current > time and exact(current) or ''
  redis.call('SET', call, lifted, 'EX', MARK_SECONDS)
  redis.call('ZREM', key('cooldowns'), limit)
  redis.call('DEL', record)
  cooling = redis.call('EXISTS', key('cooldowns')) == 1
  note_freed({ limit })
  return {lifted, hand_over(tonumber(ARGV[6]))}
end

-- The longer of two stands.
local moment = time + seconds
local stands = exact(math.max(moment, current))
redis.call('SET', call, stands, 'EX', MARK_SECONDS)
if moment > current then
  redis.call('HSET', record, 'until', stands, 'since', exact(time), 'reason', ARGV[4],
    'by', ARGV[5])
  redis.call('EXPIREAT', record, math.ceil(moment))
  redis.call('ZADD', key('cooldowns'), stands, limit)
end
return {stands, 0, 0}
