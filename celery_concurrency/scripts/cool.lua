-- cool: let a limit admit nobody for a while, or lift that. Running tasks go on.
--
-- KEYS   1 the prefix
-- ARGV   1 limit   2 seconds; 0 lifts its cool-down
--        3 a unique name for this call
--        4 its reason, and 5 who does so ('' if unknown)
--        6 steps of the hand-over at most
-- Reply  {when the cool-down ends, or when the lifted one would have ended (or did, if a probe was
--        still needed), as text; '' if there was nothing to lift, more, outbox}
-- Cost   about 8 commands, and the steps
-- Again  for ten minutes, a second copy finds the first reply and changes nothing.
-- OOM    refused, unless it lifts

-- include cooldowns
-- include handover

local limit, seconds, call = ARGV[1], tonumber(ARGV[2]), key('cooled', ARGV[3])
local replied = redis.call('GET', call)
if replied then
  return {replied, 0, 0}
end

if seconds == 0 then
  never_refuse()
  local current = cools_until(limit)
  local shut = current > time or probe_of(limit) ~= nil
  local lifted = shut and exact(current) or ''
  redis.call('SET', call, lifted, 'EX', MARK_SECONDS)
  redis.call('ZREM', key('cooldowns'), limit)
  end_probation(limit)
  note_freed({ limit })
  return {lifted, hand_over(tonumber(ARGV[6]))}
end

local stands = cool_down(limit, time + seconds, ARGV[4], ARGV[5])
redis.call('SET', call, stands, 'EX', MARK_SECONDS)
return {stands, 0, 0}
