-- Shares: in which order the names of the fair dimension are served (see index.lua for the rest).
--
-- Start-time fair queueing (Goyal, Vin and Cheng, 1996). A *flow* is what waits in one class with
-- one name of that dimension; those without a name are one flow. In flows:<class> each has a score:
-- the rank of its first waiter, then its *tag*, which grows with each waiter that is given room,
-- and more slowly the greater its weight. The lowest is next. A flow that comes, or comes back
-- after its own limits were full, begins where the lowest of its rank is, so it has saved up
-- nothing; but not before where it was, so one that sends task by task is not always first.

-- constants RANK

-- What one waiter costs at weight 1. It begins at the time in milliseconds, as tickets are, so
-- that classes from before a change of the dimension come first.
local ROUND = 100
-- How many served entries that matter no more one call removes.
local OUTDATED_MOST = 4

local function rank_in(score)
  return math.floor(score / RANK)
end

-- Return the score of the first flow of a class that has this rank, nil if there is none.
local function first_score(class, rank)
  local range = { string.format('%.0f', rank * RANK), string.format('(%.0f', (rank + 1) * RANK) }
  return tonumber(redis.call('ZRANGEBYSCORE', key('flows', class), range[1], range[2],
    'WITHSCORES', 'LIMIT', 0, 1)[2])
end

-- Take a flow out of its class. Where it is ahead of others, that is kept until they catch up.
local function leave_class(class, flow, score)
  redis.call('ZREM', key('flows', class), flow)
  local rank, served = rank_in(score), key('served', class)
  local lowest = first_score(class, rank)
  if lowest and score > lowest then
    redis.call('ZADD', served, score, flow)
    local outdated = redis.call('ZRANGEBYSCORE', served, string.format('%.0f', rank * RANK),
      '(' .. string.format('%.17g', lowest), 'LIMIT', 0, OUTDATED_MOST)
    if #outdated > 0 then
      redis.call('ZREM', served, unpack(outdated))
    end
  elseif redis.call('EXISTS', served) == 1 and redis.call('EXISTS', key('flows', class)) == 0 then
    redis.call('UNLINK', served)
  end
end

local turns = {}

-- Return with which score the first flow of a rank begins in a class: where the class is that was
-- given most, so that classes take turns too.
local function first_start(rank)
  if not turns[rank] then
    turns[rank] = redis.call('ZSCORE', key('turns'), rank)
    if not turns[rank] then
      turns[rank] = math.floor(time * 1000)
      redis.call('ZADD', key('turns'), turns[rank], rank)
    end
  end
  return rank * RANK + turns[rank]
end

-- Put a flow into its class.
local function enter_class(class, flow, rank)
  local start = first_score(class, rank)
  local served = start and tonumber(redis.call('ZSCORE', key('served', class), flow) or 0)
  if served and served > start and rank_in(served) == rank then
    start = served
  end
  redis.call('ZADD', key('flows', class), start or first_start(rank), flow)
end

-- File a flow whose first waiter has this ticket; nil if none has room in its own limits.
local function file_in_class(class, flow, ticket)
  local score = tonumber(redis.call('ZSCORE', key('flows', class), flow) or nil)
  local rank = ticket and rank_in(ticket)
  if rank == (score and rank_in(score)) then
    return
  elseif score then
    leave_class(class, flow, score)
  end
  if rank then
    enter_class(class, flow, rank)
  end
end

-- Charge a flow for a waiter with this ticket, which is given room: by the places that it takes.
local function charge(found, ticket)
  local share = found.name ~= '' and redis.call('HGET', key('config:shares'), found.name) or 1
  local flows, cost = key('flows', found.class), found.weight * ROUND / share
  local score = redis.call('ZADD', flows, 'XX', 'INCR', cost, found.flow)
  if not score then
    -- Room was collected for it, which fills its own limits.
    enter_class(found.class, found.flow, rank_in(ticket))
    score = redis.call('ZADD', flows, 'INCR', cost, found.flow)
  end
  local rank = rank_in(score)
  redis.call('ZADD', key('turns'), 'GT', score - rank * RANK - cost, rank)
  turns[rank] = nil
end

-- Return whether no flow of its rank that is in its class comes before this one.
local function is_due(found, ticket)
  local lowest = first_score(found.class, rank_in(ticket))
  local score = redis.call('ZSCORE', key('flows', found.class), found.flow)
    or redis.call('ZSCORE', key('served', found.class), found.flow)
  return not (lowest and score) or tonumber(score) <= lowest
end
