-- Cool-downs: a limit admits nobody until a moment.

-- include probes

-- Seconds after its end for which a limit that was refused waits for a run to go first; then it
-- opens by itself, as nobody needs it.
local PROBATION_SECONDS = 86400

-- Let a limit admit nobody until a moment. Return until when it does, as text: the longer of
-- two stands; and whether that is this one.
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
  -- One that was told late may be over: the run that goes first is told why all the same.
  redis.call('EXPIREAT', record,
    math.ceil(math.max(moment, time + 1) + (probed and PROBATION_SECONDS or 0)))
  return exact(moment), true
end

-- Let one run go first when it opens again, whoever has done so until now.
local function put_on_probation(limit, moment, seconds)
  local record = key('cooldown', limit)
  redis.call('ZADD', key('probes'), moment, limit)
  redis.call('HSET', record, 'lasted', seconds)
  redis.call('HDEL', record, 'probe')
  redis.call('EXPIREAT', record, math.ceil(moment + PROBATION_SECONDS))
end
