-- release: give a run's tokens back, and hand their room to those who wait for it.
--
-- KEYS   1 the prefix
-- ARGV   1 token
--        2 '1' to leave a mark: while it stands, an acquire of this token that
--          arrives late is refused. Needed wherever a reply to that acquire may
--          never have been seen. One that holds nothing leaves it always.
--        3 seconds for which a second copy of a parked message is known, whose run has
--          come to its end; '' where that has not, so that a copy runs
--        4 steps of the hand-over at most
-- Reply  {1 if the token was held, else 0, 1 if there is more to hand over,
--        1 if the outbox has messages to send}
-- Cost   one removal a limit, and the steps
-- Again  what is given back already is not held, so nothing is done or counted;
--        a mark set again only lasts from then. A hand-over frees nothing.

-- include common
-- include held

local token = ARGV[1]

local limits, kept = drop(token)
-- A reservation that an operator gives back was no run.
if limits and not kept.reserved then
  redis.call('HINCRBY', COUNTERS, 'released:total', 1)
  note_end(kept, now())
  local begun = kept.parked_as and begun_key(kept.parked_as)
  if begun and ARGV[3] ~= '' then
    redis.call('SET', begun, 'ended', 'EX', ARGV[3])
  elseif begun and redis.call('GET', begun) == token then
    -- Not that of a copy, which began when this run's time was over.
    redis.call('DEL', begun)
  end
end
-- A beat that comes after a loss of data would else bring back what has just ended.
if ARGV[2] == '1' or not limits then
  mark(token, 'ended')
end
-- What comes below costs as much as all of this: most of the time nobody waits.
if redis.call('EXISTS', GROUPS, COLLECTING, OUTBOX) == 0 then
  return {limits and 1 or 0, 0, 0}
end

-- include orphans
-- include index
-- include handover

set_all_free(limits or {})
local more, outbox = hand_over(tonumber(ARGV[4]))
return {limits and 1 or 0, more, outbox}
