-- join: let a message wait although its run has not asked, if its group already waits.
--
-- KEYS   1 the prefix
-- ARGV   1 token of the run
--        2 waiter, as in park
--        3 group: its limits, as they are given to acquire
--        4 facts of the waiter, as in park
--        5 its message, as in park
--        6 when it expires, Unix seconds; '' for never
--        7 facts of the run as for acquire, a JSON object: dimensions, rank, counted
--        8 what this server stores of its task, a JSON object with each of these that it stores:
--            result: key, value: its state RETRY; seconds: after which it expires, 0 for never
--            unacked: key, index, tag: its delivery, which this call acknowledges
--            queued: key of the queue in which it still is: this call takes it out
--            next: key, most: the queue to look at for messages that come next, and how many
--            db, in each: its database, if that is not ours; home: ours
--        9 its message as it is in that queue; '' if it is not
-- Reply  {'joined', messages}, or {'merged'} or {'again'} as in park; messages: those that come next
--        {'left'}                      it is left in its queue, or gone from there: somebody has
--                                      taken it, or one that can run came in front: nothing was done
--        {'alone'}                     its group has no waiters: nothing was done
--        {'crowded'}                   no more may wait for one of its limits: nothing was done
--        {'dimensions', names}         dimensions is out of date: nothing was done
--        {'forbidden', why}            our user may not write all of 8: it has no place, no ack
-- Cost   about 20 commands, and looking at the last LOOK_AHEAD messages of a queue; only
--        logarithms of sorted sets grow with waiters
-- Again  the waiter, or the mark that it leaves, shows that this run's message was parked; a
--        second copy writes no state, because the task may have gone on
-- OOM    refused, unless this run was parked before

-- include tickets
-- include waiters
-- include counting
-- include index when file_group is called
-- constants LOOK_AHEAD

local token, group, run = ARGV[1], ARGV[3], cjson.decode(ARGV[7])
local here = cjson.decode(ARGV[8])

-- Return whether to leave the message where it was seen: it is gone, or a worker should rather read
-- what came in front of it.
local function is_left()
  local queued, left = here.queued, false
  if queued then
    in_database(queued.db, here.home, function()
      local first = redis.call('LINDEX', queued.key, -1)
      left = not first or string.sub(first, 1, #PLACED) == PLACED
        or not redis.call('LPOS', queued.key, ARGV[9], 'RANK', -1, 'MAXLEN', 2 * LOOK_AHEAD)
    end)
  end
  return left
end

-- Take the message from the broker: it has its place here.
local function acknowledge()
  local unacked, queued = here.unacked, here.queued
  if queued then
    in_database(queued.db, here.home, function()
      redis.call('LREM', queued.key, -1, ARGV[9])
    end)
  end
  if unacked then
    in_database(unacked.db, here.home, function()
      redis.call('HDEL', unacked.key, unacked.tag)
      redis.call('ZREM', unacked.index, unacked.tag)
    end)
  end
end

-- Return the messages that a queue would give next, the next one first.
local function next_messages()
  local found = {}
  if here.next then
    in_database(here.next.db, here.home, function()
      found = redis.call('LRANGE', here.next.key, -here.next.most, -1)
    end)
  end
  return found
end

-- How Celery begins the JSON of a success.
local SUCCESS = '{"status": "SUCCESS"'

-- Write the state as Celery does: never over a success.
local function write_state()
  local result = here.result
  if result then
    in_database(result.db, here.home, function()
      local before = redis.call('GET', result.key) or ''
      if string.sub(before, 1, #SUCCESS) == SUCCESS then
        return
      elseif result.seconds > 0 then
        redis.call('SET', result.key, result.value, 'EX', result.seconds)
      else
        redis.call('SET', result.key, result.value)
      end
      redis.call('PUBLISH', result.key, result.value)
    end)
  end
end

-- Write what else this server stores; return why that failed, if it did. Before its place, so
-- that it has none then; its ack comes last, as nothing after it can fail.
local function write_the_rest()
  local done, problem = pcall(function()
    write_state()
    acknowledge()
  end)
  return not done and (type(problem) == 'table' and problem.err or problem) or nil
end

local place, waiter = place_of(token, ARGV[2], ARGV[5])
if place == 'again' then
  if not here.queued then
    acknowledge()
  end
  return {place}
elseif is_left() then
  return {'left'}
elseif place == 'merged' then
  local problem = write_the_rest()
  if problem then
    return {'forbidden', problem}
  end
  mark(token, 'parked')
  return {place}
end

local enabled, dimensions
enabled, dimensions, bounded = unpack(redis.call('HMGET', key('config:flat'), 'enabled', 'dimensions',
  'bounded'))
if dimensions and dimensions ~= run.dimensions then
  return {'dimensions', dimensions}
elseif enabled ~= '1' or redis.call('EXISTS', key('group', group)) == 0 then
  return {'alone'}
elseif crowd_of(group) then
  return {'crowded'}
end

local ticket = take_ticket(run.rank)
local problem = write_the_rest()
if problem then
  return {'forbidden', problem}
end
count('denied:', run.counted)
if file_waiter(waiter, group, ticket, ticket, facts_under(waiter, ARGV[2], ARGV[4], token),
    ARGV[5], ARGV[6]) then
  file_group(group)
end
return {'joined', next_messages()}
