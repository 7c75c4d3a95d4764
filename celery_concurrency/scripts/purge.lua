-- purge: throw away the messages of waiters, of the groups that the caller names.
--
-- Nobody is told; cancel is for that. A caller outside of tasks is still there and waits, so its
-- message goes back to it, and it asks again.
--
-- KEYS   1 the prefix
-- ARGV   1 the time in the last ticket to purge: waiters that asked later stay
--        and for each group 2 its name   3 how many of its first waiters to look at, 1 or more
-- Reply  {how many were taken out, how many of them were thrown away}
-- Cost   about 20 commands per waiter; the caller asks for 64 in total
-- Again  a second copy takes others up to the last ticket, and none that came later.
-- OOM    done

-- include taking_out
-- constants RANK

local last, taken, thrown, callers = tonumber(ARGV[1]), 0, 0, {}

local function is_caller(message)
  return string.find(message.facts.queue or '', key('call', ''), 1, true) == 1
end

local function throw_away(waiter, group)
  local message = take_out(waiter, group)
  if message and is_caller(message) then
    callers[#callers + 1] = message
  elseif message then
    thrown = thrown + 1
  end
  taken = taken + 1
end

never_refuse()
for i = 2, #ARGV, 2 do
  local found = redis.call('ZRANGE', key('group', ARGV[i]), 0, ARGV[i + 1] - 1, 'WITHSCORES')
  for j = 1, #found, 2 do
    if found[j + 1] % RANK <= last then
      throw_away(found[j], ARGV[i])
    end
  end
end
put_in_front(callers)
if thrown > 0 then
  redis.call('HINCRBY', key('stats:counters'), 'cancelled:total', thrown)
end
return {taken, thrown}
