-- release: release a run's tokens, and hand their room over to waiters.
--
-- KEYS   1 the prefix
-- ARGV   1 token
--        2 '1' to leave a mark that refuses a late acquire of this token: needed if the reply to
--          an acquire may have been lost. A token that is not held always gets it.
--        3 seconds for which a second copy of the run's message is recognized, if the run came
--          to its end; '' if it did not, so that a copy runs
--        4 'unbegun' if its body never began: its start does not count; 'succeeded' if it
--          succeeded, which opens the limits in which it was the probe; else ''
--        5 steps of the hand-over at most
-- Reply  {1 if the token was held, else 0, 1 if there is more to hand over,
--        1 if the outbox has messages to send}
-- Cost   one removal per limit; while any limit is on probation 2 commands, and 2 for each of the
--        run's limits that is; and the steps
-- Again  a second copy finds the token not held, sets the mark, and goes on handing over.
-- OOM    done; the hand-over as in advance

-- include tokens
-- include freed when note_freed is called
-- include probes when succeed is called
-- include handover when hand_over is called

local token = ARGV[1]

-- A hand-over costs as much as everything else here, and mostly nobody waits.
local others = redis.call('EXISTS', key('groups'), key('collecting'), key('outbox'),
  key('probes')) > 0
local hands_over = others
  and redis.call('EXISTS', key('groups'), key('collecting'), key('outbox')) > 0
if hands_over then
  never_refuse()
end

local record = drop_token(token, ARGV[4] == 'unbegun')
local held = record and 1 or 0
-- A reservation that an operator releases was not a run.
if record and not record.reserved then
  redis.call('HINCRBY', key('stats:counters'), 'released:total', 1)
  note_end(record)
  local begun = record.parked_as and key('begun', record.parked_as)
  if begun and ARGV[3] ~= '' then
    redis.call('SET', begun, 'ended', 'EX', ARGV[3])
  elseif begun and redis.call('GET', begun) == token then
    -- Leave that of a copy, which began when this run's time was over.
    redis.call('DEL', begun)
  end
end
-- Without a mark, a beat after a loss of data would bring back a run that has ended.
if ARGV[2] == '1' or not record then
  mark(token, 'ended')
end
if others and record and ARGV[4] == 'succeeded' then
  succeed(token, record.limits)
end
if not hands_over then
  return {held, 0, 0}
end

note_freed(record and record.limits or {})
return {held, hand_over(tonumber(ARGV[5]))}
