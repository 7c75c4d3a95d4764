-- drain: give waiting tasks back to the broker, those first that wait the longest.
--
-- KEYS   1 the prefix
-- ARGV   1 how many at most
-- Reply  {how many were given back, 1 if more wait, 1 if the outbox has messages to send}
-- Cost   about 20 commands a task
-- Again  a second copy gives the next ones back.

-- include common
-- include held
-- include orphans
-- include index
-- include handover

local count, most = 0, tonumber(ARGV[1])
while count < most do
  local group = first(GROUPS)
  if not group then
    break
  end
  local waiter = first(group_key(group))
  if not waiter then
    -- Somebody deleted its key by hand, or that of the waiter below.
    place_group(group)
  elseif not take_out(waiter, backs, false) then
    redis.call('ZREM', group_key(group), waiter)
    place_group(group)
  end
  count = count + 1
end
put_all_back()
return {count, redis.call('EXISTS', GROUPS), redis.call('EXISTS', OUTBOX)}
