-- park: let a denied run's message wait, or hand it over at once if there is room by now.
--
-- KEYS   1 the prefix
-- ARGV   1 token of the denied run
--        2 waiter: its task's id; of a retried task, with the number of its retries
--        3 group: its limits, as acquire was given them
--        4 its ticket, as acquire replied
--        5 facts of the waiter, a JSON object: group, run (the token), hold (seconds for
--          which a reservation lasts), task (its id, where the waiter has another), and
--          where the broker is this server: queue (its key), queue_expires
--          (milliseconds), db and home (the broker's database and ours, if they differ)
--        6 its message, complete, beginning with MESSAGE_START
--        7 when it expires, Unix seconds; '' for never
--        8 steps of the hand-over at most
-- Reply  {'parked' | 'handed over' | 'merged' | 'again', more, outbox}; merged: this
--        task waits already, by another copy of its message; again: this run was parked
--        or rescued before; more and outbox as in release
-- Cost   about 20 commands, and the steps; only logarithms of sorted sets grow with waiters
-- Again  the waiter, or the mark that it leaves, says that this run's message was parked; a
--        second copy only goes on handing over.
-- OOM    refused, unless this run was parked before

-- include handover

local token, waiter, group = ARGV[1], ARGV[2], ARGV[3]

local function file_waiter()
  redis.call('SET', key('waiter', waiter), ARGV[5] .. '\n' .. ARGV[6])
  redis.call('ZADD', key('group', group), ARGV[4], waiter)
  redis.call('ZADD', key('names'), 0, waiter)
  if ARGV[7] ~= '' then
    redis.call('ZADD', key('expiring'), ARGV[7], waiter)
  end
  local task = cjson.decode(ARGV[5]).task
  if task then
    redis.call('SADD', key('retried', task), waiter)
  end
  redis.call('HINCRBY', key('stats:counters'), 'parked:total', 1)
  if first(key('group', group)) == waiter then
    file_group(group)
  end
end

local answer
local message = read_waiter(waiter)
if message and message.facts.run == token
  or redis.call('HEXISTS', key('token', token), 'parked') == 1
  or redis.call('HEXISTS', key('token', token), 'rescued') == 1 then
  never_refuse()
  answer = 'again'
elseif message then
  answer = 'merged'
  mark(token, 'parked')
else
  file_waiter()
end
local more, outbox = hand_over(tonumber(ARGV[8]))
if not answer then
  answer = redis.call('EXISTS', key('waiter', waiter)) == 1 and 'parked' or 'handed over'
end
return {answer, more, outbox}
