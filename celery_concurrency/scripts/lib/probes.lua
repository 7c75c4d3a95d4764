-- Probes: after a cool-down that a refusal started, one run, the probe, is admitted first, and
-- nobody else until it has succeeded. Until then the limit is on probation: it is in `probes`, and
-- its record cooldown:<limit> names the run or reservation that is the probe.

-- Return the token of the probe, false if there is none now; nil without probation.
local function probe_of(limit)
  if not redis.call('ZSCORE', key('probes'), limit) then
    return nil
  end
  local token = redis.call('HGET', key('cooldown', limit), 'probe')
  -- A token that died, lapsed or was released is no longer the probe, whoever removed it.
  return token and redis.call('ZSCORE', key('leases'), token) and token or false
end

-- Note that a run or reservation is the probe in those of its limits that need one; `instead` is
-- the reservation on which it begins.
local function note_probe(token, limits, instead)
  local probed = redis.call('ZMSCORE', key('probes'), unpack(limits))
  for i, limit in ipairs(limits) do
    local probe = probed[i] and probe_of(limit)
    if probed[i] and (not probe or probe == instead) then
      redis.call('HSET', key('cooldown', limit), 'probe', token)
    end
  end
end

-- No probe is needed any more. A cool-down that an operator set in the meantime stays.
local function end_probation(limit)
  redis.call('ZREM', key('probes'), limit)
  if tonumber(redis.call('ZSCORE', key('cooldowns'), limit) or 0) > time then
    redis.call('HDEL', key('cooldown', limit), 'lasted', 'probe')
  else
    redis.call('DEL', key('cooldown', limit))
  end
end

-- A run has succeeded: it opens the limits in which it was the probe.
local function succeed(token, limits)
  local probed = redis.call('ZMSCORE', key('probes'), unpack(limits))
  for i, limit in ipairs(limits) do
    if probed[i] and redis.call('HGET', key('cooldown', limit), 'probe') == token then
      end_probation(limit)
    end
  end
end
