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
-- Again  a second copy finds its name, for ten minutes after the end too, and changes nothing;
--        one that lifts finds nothing to lift, or lifts what was set in between.
-- OOM    refused, unless it lifts

-- include handover

local limit, seconds = ARGV[1], tonumber(ARGV[2])
local record = key('cooldown', limit)
local current = tonumber(redis.call('ZSCORE', key('cooldowns'), limit) or 0)

if seconds == 0 then
  never_refuse()
  local lifted = current > time and exact(current) or ''
  redis.call('ZREM', key('cooldowns'), limit)
  redis.call('HDEL', record, 'until', 'since', 'reason', 'by')
  redis.call('EXPIRE', record, MARK_SECONDS)
  cooling = redis.call('EXISTS', key('cooldowns')) == 1
  note_freed({ limit })
  return {lifted, hand_over(tonumber(ARGV[6]))}
end

-- The longer of two stands.
local moment = time + seconds
if moment > current and redis.call('HGET', record, 'id') ~= ARGV[3] then
  redis.call('HSET', record, 'id', ARGV[3], 'until', exact(moment), 'since', exact(time),
    'reason', ARGV[4], 'by', ARGV[5])
  redis.call('EXPIREAT', record, math.ceil(moment + MARK_SECONDS))
  redis.call('ZADD', key('cooldowns'), exact(moment), limit)
  current = moment
end
return {exact(current), 0, 0}
