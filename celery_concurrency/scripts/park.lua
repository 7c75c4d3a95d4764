-- park: let a denied run's message wait, or go on at once if there is room by now.
--
-- KEYS   1 the prefix
-- ARGV   1 token of the denied run
--        2 waiter: its task's id; of a retried task, with the number of its retries
--        3 group: its limits, as acquire was given them
--        4 its place, as acquire replied
--        5 facts of the waiter, a JSON object: group, run (the token), hold (seconds for
--          which a reservation lasts), task (its id, where the waiter has another), and
--          where the broker is this server: queue (its key), queue_expires
--          (milliseconds), db and home (the broker's database and ours, if they differ)
--        6 its message, complete, beginning with '{"headers": {'
--        7 when it expires, Unix seconds; '' for never
--        8 steps of the hand-over at most
-- Reply  {'parked' | 'handed over' | 'merged' | 'again', more, outbox}; merged: this
--        task waits already, by another copy of its message; more and outbox as in release
-- Cost   about 20 commands, and the steps; nothing grows with those who wait, but
--        for the logarithm in a sorted set
-- Again  the waiter itself, or the mark that is left when it goes, says that this
--        run's message has found its place, wherever it is by now.

-- include common
-- include held
-- include orphans
-- include index
-- include handover

local token, waiter, group = ARGV[1], ARGV[2], ARGV[3]

local function file_waiter()
  redis.call('SET', waiter_key(waiter), ARGV[5] .. '\n' .. ARGV[6])
  redis.call('ZADD', group_key(group), ARGV[4], waiter)
  if ARGV[7] ~= '' then
    redis.call('ZADD', EXPIRING, ARGV[7], waiter)
  end
  local task = cjson.decode(ARGV[5]).task
  if task then
    redis.call('SADD', retried_key(task), waiter)
  end
  redis.call('HINCRBY', COUNTERS, 'parked:total', 1)
  if first(group_key(group)) == waiter then
    place_group(group)
  end
end

local answer
local facts = read_waiter(waiter)
if facts and facts.run == token or redis.call('HEXISTS', token_key(token), 'parked') == 1 then
  answer = 'again'
elseif facts then
  answer = 'merged'
  mark(token, 'parked')
else
  file_waiter()
end
local more, outbox = hand_over(tonumber(ARGV[8]))
if not answer then
  answer = redis.call('EXISTS', waiter_key(waiter)) == 1 and 'parked' or 'handed over'
end
return {answer, more, outbox}
