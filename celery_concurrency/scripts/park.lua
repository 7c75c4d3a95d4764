-- park: let a denied run's message wait, or hand it over at once if there is room by now.
--
-- KEYS   1 the prefix
-- ARGV   1 token of the denied run
--        2 waiter: its task's id; of a retried task, with the number of its retries. If another
--          message of that name waits, with other work, this one gets a name of its own
--        3 group: its limits, as they were given to acquire
--        4 its ticket, from the reply of acquire
--        5 facts of the waiter, a JSON object: group, run (the token, without its task's id), as
--          (the run that parked it first, if that is another), hold (seconds for which a
--          reservation lasts), task (its id, if the waiter's name differs), and, if the broker is
--          this server, queue (its key), queue_expires (milliseconds), db and home (the broker's
--          database and ours, if they differ), newest (if it replaces older ones of its task with
--          the same limits: the task's name, and when it was received, microseconds), has_begun
--          (true if an earlier run of its task has begun)
--        6 its message, complete, beginning with MESSAGE_START; its place is put in when it leaves
--        7 when it expires, Unix seconds; '' for never
--        8 steps of the hand-over at most
-- Reply  {'parked' | 'handed over' | 'merged' | 'replaced' | 'crowded' | 'again', more, outbox};
--        merged: this task waits already, by another copy of its message; replaced: a newer one
--        waits, so this one is cancelled; crowded: no more may wait, so this one is put back and
--        fails; again: this run was parked or rescued before; more and outbox as in release
-- Cost   about 20 commands, 20 more if it replaces another, and the steps; only logarithms of
--        sorted sets grow with waiters
-- Again  the waiter, or the mark that it leaves, shows that this run's message was parked; a
--        second copy only goes on handing over.
-- OOM    refused, unless this run was parked before

-- include handover
-- include waiters
-- include replacing
-- include giving_up

local token, group, facts = ARGV[1], ARGV[3], cjson.decode(ARGV[5])

local answer, waiter = place_of(token, ARGV[2], ARGV[6])
local ticket = not answer and replace_older(facts, ARGV[4])
-- One that replaces another adds nobody; one that waited before, or has begun before, is not new.
local crowd = ticket == ARGV[4] and not facts.as and not facts.has_begun
  and crowd_of(group)
if answer == 'again' then
  never_refuse()
elseif answer == 'merged' then
  mark(token, 'parked')
elseif crowd or not ticket then
  answer = crowd and 'crowded' or 'replaced'
  mark(token, 'parked')
  facts.run = token
  local message = { facts = facts, text = ARGV[6], refusal = crowd }
  note_place(message, ARGV[4])
  if crowd then
    give_up({ message })
  else
    redis.call('HINCRBY', key('stats:counters'), 'replaced:total', 1)
    put_back_discarded({ message })
  end
elseif file_waiter(waiter, group, ticket, ARGV[4], facts_under(waiter, ARGV[2], ARGV[5], token),
    ARGV[6], ARGV[7]) then
  file_group(group)
end
local more, outbox = hand_over(tonumber(ARGV[8]))
if not answer then
  answer = redis.call('EXISTS', key('waiter', waiter)) == 1 and 'parked' or 'handed over'
end
return {answer, more, outbox}
