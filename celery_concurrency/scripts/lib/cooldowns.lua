-- Cool-downs: a limit admits nobody until a given time.

-- include probes

-- Seconds after its end for which a limit that was refused waits for a probe; then it opens by
-- itself, because nobody needs it.
local PROBATION_SECONDS = 86400

-- Let a limit admit nobody until a given time. Of two cool-downs the longer stands: return its
-- end as text, and whether it is this one.
local function cool_down(limit, moment, reason, by)
  local current = tonumber(redis.call('ZSCORE', key('cooldowns'), limit) or 0)
  if moment <= current then
    return exact(current), false
  end
  local record = key('cooldown', limit)
  redis.call('HSET', record, 'until', exact(moment), 'since', exact(time), 'reason', reason,
    'by', by)
  redis.call('ZADD', key('cooldowns'), exact(moment), limit)
  local probed = redis.call('ZADD', key('probes'), 'XX', 'CH', exact(moment), limit) == 1
  -- If it was reported late, it may be over; the reason is stored for the probe all the same.
  redis.call('EXPIREAT', record,
    math.ceil(math.max(moment, time + 1) + (probed and PROBATION_SECONDS or 0)))
  return exact(moment), true
end

-- Require a probe when it opens again, even if there has been one.
local function put_on_probation(limit, moment, seconds)
  local record = key('cooldown', limit)
  redis.call('ZADD', key('probes'), moment, limit)
  redis.call('HSET', record, 'lasted', seconds)
  redis.call('HDEL', record, 'probe')
  redis.call('EXPIREAT', record, math.ceil(moment + PROBATION_SECONDS))
end
