-- drain: give waiting tasks back to the broker, the first tickets first.
--
-- KEYS   1 the prefix
-- ARGV   1 how many at most
-- Reply  {how many were given back, 1 if more wait, 1 if the outbox has messages to send}
-- Cost   about 20 commands a task
-- Again  a second copy gives the next ones back.
-- OOM    done

-- include taking_out

never_refuse()
local count, most, messages = 0, tonumber(ARGV[1]), {}
while count < most do
  local group = first(key('groups'))
  if not group then
    break
  end
  local waiter = first(key('group', group))
  if waiter then
    messages[#messages + 1] = take_out(waiter, group)
  else
    -- Somebody deleted its key by hand.
    file_group(group)
  end
  count = count + 1
end
put_behind(messages)
return {count, redis.call('EXISTS', key('groups')), redis.call('EXISTS', key('outbox'))}
