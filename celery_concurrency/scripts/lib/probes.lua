-- Probes: after a cool-down that a refusal began, one run is let in first, and nobody else before
-- that has succeeded. Until then the limit is on probation: it is in `probes`, and its record
-- cooldown:<limit> names the run or reservation that goes first.

-- Return the token that goes first now, false if none does; nil without probation.
local function probe_of(limit)
  if not redis.call('ZSCORE', key('probes'), limit) then
    return nil
  end
  local token = redis.call('HGET', key('cooldown', limit), 'probe')
  -- One that died, lapsed or was given back goes first no more, whoever took it out.
  return token and redis.call('ZSCORE', key('leases'), token) and token or false
end

-- Note that a run or reservation goes first in those of its limits where somebody has to;
-- `instead` is the reservation on which it begins.
local function note_probe(token, limits, instead)
  local probed = redis.call('ZMSCORE', key('probes'), unpack(limits))
  for i, limit in ipairs(limits) do
    local probe = probed[i] and probe_of(limit)
    if probed[i] and (not probe or probe == instead) then
      redis.call('HSET', key('cooldown', limit), 'probe', token)
    end
  end
end

-- Nobody has to go first any more. A cool-down that an operator set meanwhile stays.
local function end_probation(limit)
  redis.call('ZREM', key('probes'), limit)
  if tonumber(redis.call('ZSCORE', key('cooldowns'), limit) or 0) > time then
    redis.call('HDEL', key('cooldown', limit), 'lasted', 'probe')
  else
    redis.call('DEL', key('cooldown', limit))
  end
end

-- A run has ended: it opens the limits in which it went first.
local function succeed(token, limits)
  local probed = redis.call('ZMSCORE', key('probes'), unpack(limits))
  for i, limit in ipairs(limits) do
    if probed[i] and redis.call('HGET', key('cooldown', limit), 'probe') == token then
      end_probation(limit)
    end
  end
end
