-- Counting: the answers to runs, in total, by platform and by task type; never by account.

-- include named when begin_counter is called

local function count(what, counted)
  local counters = key('stats:counters')
  redis.call('HINCRBY', counters, what .. 'total', 1)
  for i = 1, #counted do
    if redis.call('HINCRBY', counters, what .. counted[i], 1) == 1 then
      begin_counter(what, counted[i])
    end
  end
end
