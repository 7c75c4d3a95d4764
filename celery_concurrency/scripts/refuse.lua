-- refuse: a platform refused a run. One of its limits cools down, and a probe runs first in it
-- afterwards; its adaptive limits fall.
--
-- KEYS   1 the prefix
-- ARGV   1 token of the run   2 its limits, as JSON
--        3 the limit that cools down, one of them
--        4 for how many seconds; 0 for none   5 how many seconds ago it was refused
--        6 if the run is the probe, the last seconds are multiplied by this
--        7 seconds up to which they grow
--        8 the reason, and 9 who reports it
--        10 steps of the hand-over at most
-- Reply  {when the cool-down ends, as text, maybe in the past; '' if there is none, more, outbox}
-- Cost   about 12 commands, two per limit, 3 more for an adaptive one, and 8 when it falls; the
--        steps if the run was the probe
-- Again  for ten minutes, a second copy, or a second refusal of the run in the same limit, finds
--        the first reply and changes nothing. A run that is refused in another limit too is
--        counted once, and lowers nothing again.
-- OOM    refused

-- include limits
-- include tokens
-- include named
-- include adaptive
-- include moments
-- include cooldowns
-- include handover

local token, limits, limit = ARGV[1], cjson.decode(ARGV[2]), ARGV[3]
local seconds, ago = tonumber(ARGV[4]), tonumber(ARGV[5])
local grow, most, reason = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

local told = key('refused', token)
local replied = redis.call('HGET', told, limit)
if replied then
  return {replied, 0, 0}
end
local is_first = redis.call('EXISTS', told) == 0

-- Count it: in total, by platform and by task type; never by account.
local function count()
  redis.call('HINCRBY', key('stats:counters'), 'refused:total', 1)
  for _, one in ipairs(limits) do
    if is_shared(one) and redis.call('HINCRBY', key('stats:counters'), 'refused:' .. one, 1) == 1 then
      begin_counter('refused:', one)
    end
  end
end

-- Return for how many seconds the limit cools down: longer if the probe was refused, and no
-- shorter than last time if another run was.
local function duration()
  local probe = probe_of(limit)
  if probe == nil then
    return seconds
  end
  local last = tonumber(redis.call('HGET', key('cooldown', limit), 'lasted') or 0)
  if probe == token then
    last = math.min(last * grow, math.max(most, last))
  end
  return math.max(seconds, last)
end

local until_ = ''
if seconds > 0 then
  local length = duration()
  local is_longer
  until_, is_longer = cool_down(limit, time - ago + length, reason, ARGV[9])
  if is_longer then
    put_on_probation(limit, until_, length)
  end
end
redis.call('HSET', told, limit, until_)
redis.call('EXPIRE', told, MARK_SECONDS)
-- It is no longer the probe, in any limit: another run has to show that the platform accepts it.
local went_first = {}
for _, one in ipairs(limits) do
  if redis.call('HGET', key('cooldown', one), 'probe') == token then
    redis.call('HDEL', key('cooldown', one), 'probe')
    table.insert(went_first, one)
  end
end
if is_first then
  count()
  for _, one in ipairs(limits) do
    fall(one, reason)
  end
end
if #went_first == 0 then
  return {until_, 0, 0}
end
note_freed(went_first)
return {until_, hand_over(tonumber(ARGV[10]))}
