-- acquire: grant a run a token in each of its limits, or in none of them.
--
-- KEYS   1 the prefix
-- ARGV   1 token: the run's id, which begins with its task's id
--        2 group: the run's limits, as JSON; behind them its weight if that is more than 1, the
--          number of places that it takes in `global`, platform and task type
--        3 what many runs have in common, a JSON object:
--            wildcards: one per limit, for the maximum of names not listed: ["global:*", ...]
--            counted: those of its limits that have counters
--            dimensions: the user's own as the caller knows them, one text
--            task, worker: their names, shown in listings
--            rank: 0 for the highest priority, 1 more for each lower one; 255 at most
--            copies: seconds for which a second copy of a parked message is recognized
--            lease: seconds after which the token is taken back unless it is renewed;
--              absent if only its expiry counts
--            begun: true if the run has begun: it is granted even without room
--            skips: if it does not wait where its own limits are busy: their places among its limits
--            replaces: true if it takes the place of an older one of its task, if one waits
--            has_begun: true if an earlier run of its task has begun: it may wait however many do
--        4 '', or how its message waited before, a JSON object:
--            place: its ticket, as text
--            parked_as: the run that parked it, '' if it was never parked
--            group: the group it waited in, if that is another one
--            received: when a worker received it, Unix microseconds, if it replaces older ones
-- Reply  {'granted', expiry, fence}    held until expiry; fence is a number that only grows
--        {'denied', limit, held, max, ticket}  a full limit; max -1: paused
--        {'shut', limit, until, seconds, cause, ticket}  a limit that opens by itself, when (Unix
--                                      seconds) and in how many seconds; the cause is 'max/per',
--                                      a rate, or 'cooldown'
--        {'probed', limit, token, ticket}  a limit with a probe after a refusal, and the probe's
--                                      token. If several limits deny, one is named: see denial
--        {'behind', limit, ticket}     there may be room, but others come first
--        {'skipped', limit}            one of those that it skips is busy, or others of the same
--                                      limits wait: drop it
--        {'crowded', limit, most, waiting}  denied, and as many wait for one of its limits as may
--        {'overdue', limit, seconds, waited}  denied, and it has waited for as long as it may
--        {'heavy', limit, max}         its weight is higher than this limit ever admits: it fails
--        {'ended'}                     the run was given up already, or its time is over
--        {'running', token}            another run has begun on the same message
--        {'done'}                      that run has ended: drop this copy
--        {'dimensions', names}         dimensions is out of date; nothing was done
--        {'unconfigured'}              no flat configuration; nothing was done
-- Cost   about 4 commands per limit; a denial adds one per counted limit, and 5 if that has no
--        counter of its own; a limit with rates adds about 8, an adaptive one 3 and 8 more when it
--        moves, an observed one some 15; where waiting has bounds, a denial adds 2 per limit; while
--        any limit cools down or is on probation, 4, and 3 for each of the run's limits that does.
--        Only logarithms of sorted sets grow with holders and waiters, nothing with the
--        configuration
-- Again  a second copy finds the token held and repeats the grant, or finds the mark of a
--        run that was given up or taken back. Each denial uses up a ticket, gives up a
--        reservation that nobody can use, and is counted.
-- OOM    refused, unless the token is held, something is reserved for it, or it may not wait

-- include limits when is_shared is called
-- include freed when drop_orphans is called
-- include reservations when begin_on_reservation is called
-- include reservations when give_up_reservation is called
-- include counting
-- include groups
-- include places when places_in is called
-- include places when until_expiry is called
-- include tickets
-- include moments when shut_until is called
-- include moments when note_start is called
-- include observe when observe_start is called
-- include adaptive when adapt is called
-- include bounds when refuse_to_wait is called
-- include adaptive when highest_of is called
-- include probes when probe_of is called
-- include probes when note_probe is called
-- constants PAUSED, RANK, SHORTEST_LEASE

local token, group = ARGV[1], ARGV[2]
local run = cjson.decode(ARGV[3])
local limits, weight = limits_in(group)
local wildcards = run.wildcards
local record = key('token', token)

local fields, semaphores = {'enabled', 'timeout', 'dimensions', 'opens', 'rated', 'adapting'}, {}
for i = 1, #limits do
  fields[5 + 2 * i], fields[6 + 2 * i] = limits[i], wildcards[i]
  semaphores[i] = key('semaphore', limits[i])
end
fields[#fields + 1] = 'bounded'
fields[#fields + 1] = 'observing'
local config = redis.call('HMGET', key('config:flat'), unpack(fields))
if not config[3] then
  return {'unconfigured'}
elseif config[3] ~= run.dimensions then
  return {'dimensions', config[3]}
end

-- Look at everything at once: mostly this call is not a copy, nobody waits, nothing cools down.
local others = redis.call('EXISTS', record, key('groups'), key('cooldowns'), key('probes')) > 0
local cooling = others and redis.call('EXISTS', key('cooldowns'), key('probes')) > 0
if others and redis.call('EXISTS', record) == 1 then
  -- Held or ended. A token whose time is over has ended too, swept or not.
  local expiry = tonumber(redis.call('ZSCORE', key('leases'), token) or 0)
  if expiry > time then
    return {'granted', math.ceil(expiry), tonumber(redis.call('HGET', record, 'fence'))}
  end
  return {'ended'}
end

-- Whole seconds, rounded up: easy to read in redis-cli.
local timeout = tonumber(config[2])
local expiry = math.ceil(time + (run.lease and math.max(timeout, SHORTEST_LEASE) or timeout))

local waited = ARGV[4] ~= '' and cjson.decode(ARGV[4])
local parked = waited and waited.parked_as ~= ''
local reserved = false
if parked then
  local begun = redis.call('GET', key('begun', waited.parked_as))
  if begun == 'ended' then
    return {'done'}
  elseif begun and tonumber(redis.call('ZSCORE', key('leases'), begun) or 0) > time then
    return {'running', begun}
  end
  if waited.group then
    -- Its limits have changed since: a reservation of the old limits is useless, and its
    -- room goes to the waiters, this run included.
    give_up_reservation(waited.group)
  end
  reserved = begin_on_reservation(group, token, expiry, config[1] == '1', cooling)
end

local function max_of(i)
  return tonumber(config[5 + 2 * i] or config[6 + 2 * i] or 0)
end

-- Return whether a limit is in one of these dimensions, written as ':account:*:platform:*:'.
-- Mostly the first check says no, without building a text.
local function is_among(dimensions, i)
  return dimensions and string.find(dimensions, wildcards[i], 1, true)
    and string.find(dimensions, ':' .. wildcards[i], 1, true)
end

-- Which of the limits have rates or are adaptive, by themselves or by their dimension's wildcard.
local has_rates, any_has, adapts = {}, false, {}
if config[5] or config[6] then
  for i = 1, #limits do
    has_rates[i], adapts[i] = is_among(config[5], i), is_among(config[6], i)
    any_has = any_has or has_rates[i]
  end
end

-- Which of them cool down or are on probation: one read of all for each question.
local cools, probed = {}, {}
if cooling then
  cools = redis.call('ZMSCORE', key('cooldowns'), unpack(limits))
  probed = redis.call('ZMSCORE', key('probes'), unpack(limits))
end

local function is_limited(i)
  return max_of(i) ~= 0 or has_rates[i] or adapts[i]
end

-- Return a limit's denial, nil if it has room, and its rank among denials. A token whose time is
-- over counts until a sweep takes it back: only the sweep knows whether anybody could renew it.
local function denial_of(i)
  local limit, max, held = limits[i], max_of(i), 0
  local taken = weight == 1 and 1 or places_in(limit, weight)
  if max ~= 0 or adapts[i] then
    held = redis.call('ZCARD', semaphores[i])
    if adapts[i] then
      max = adapt(limit, held, max, taken)
    end
  end
  if max == PAUSED then
    return {'denied', limit, held, max}, 0
  end
  local moment, cause = 0, nil
  if cools[i] or has_rates[i] then
    moment, cause = shut_until(limit)
  end
  local shut = moment > 0 and {'shut', limit, exact(moment), exact(moment - time), cause}
  if shut and cause == 'cooldown' then
    return shut, 1
  end
  local probe = probed[i] and probe_of(limit)
  if probe then
    return {'probed', limit, probe}, 1
  end
  if max ~= 0 and held + taken > max and drop_orphans(limit) then
    held = redis.call('ZCARD', semaphores[i])
  end
  if max ~= 0 and held + taken > max then
    return {'denied', limit, held, max}, 2
  end
  return shut or nil, 2
end

-- The narrower a limit, the earlier it is named; the user's own dimensions have 1.
local BREADTH = { account = 0, task_type = 2, platform = 3, global = 4 }

local denials = {}

-- Return the denial to name, nil if every limit has room: first that of a limit which no run's end
-- opens, then that of the narrowest (limiter/inspect/blocking.py has the same order).
local function denial()
  local first, lowest = nil, math.huge
  for i = 1, #limits do
    local denied, kind = denial_of(i)
    if denied then
      denials[i] = true
      local place = 5 * kind + (BREADTH[string.match(limits[i], '^[^:]*')] or 1)
      if place < lowest then
        first, lowest = denied, place
      end
    end
  end
  return first
end

-- Return the limit in which waiters come before this run, nil if there is none.
local function limit_of_seniors()
  if cooling and redis.call('EXISTS', key('groups')) == 0 then
    -- Nobody waits, though a moment may be left over from an earlier waiter.
    return nil
  end
  local under_way = redis.call('EXISTS', key('open')) == 1
  if under_way then
    -- A hand-over is in progress: the room of limits that many groups share is for waiters.
    for i = 1, #limits do
      if is_limited(i) and (limits[i] == 'global' or is_shared(limits[i])) then
        return limits[i]
      end
    end
  end
  for i = 1, #limits do
    if redis.call('SISMEMBER', key('freed'), limits[i]) == 1 then
      return limits[i]
    end
    if cooling or has_rates[i] then
      local moment = redis.call('ZSCORE', key('moments'), limits[i])
      if moment and tonumber(moment) <= time then
        -- It has just opened, and its room was not handed over yet.
        return limits[i]
      end
    end
    if under_way and (cools[i] or probed[i]) then
      -- Or the hand-over has begun, but has not reached them yet.
      return limits[i]
    end
  end
  return redis.call('EXISTS', key('group', group)) == 1 and limits[#limits] or nil
end

-- Return the limit for which the run is dropped instead of waiting, nil if it waits.
local function busy_limit()
  for _, i in ipairs(run.skips) do
    if denials[i] then
      return limits[i]
    end
  end
  return redis.call('EXISTS', key('group', group)) == 1 and limits[#limits] or nil
end

-- Return the refusal of a run whose weight a limit never admits, nil if there is none.
local function too_heavy()
  for i = 1, #limits do
    local max = max_of(i)
    if adapts[i] then
      max = highest_of(limits[i], max)
    end
    if max > 0 and places_in(limits[i], weight) > max then
      return {'heavy', limits[i], max}
    end
  end
end

-- Return why the run must wait, is dropped or fails, nil if it may begin.
local function refusal()
  if time < tonumber(config[4]) then
    -- The data was lost: first the living runs report what they hold.
    return {'behind', 'global'}
  elseif config[1] ~= '1' then
    return nil
  end
  local heavy = weight > 1 and too_heavy()
  if heavy then
    return heavy
  end
  local denied = denial()
  local senior = not denied and others and limit_of_seniors()
  local busy = run.skips and (denied or senior) and busy_limit()
  return busy and {'skipped', busy} or denied or senior and {'behind', senior}
end

if not reserved then
  local refused = not run.begun and refusal()
  if refused and refused[1] == 'heavy' then
    return refused
  elseif refused and refused[1] == 'skipped' then
    count('skipped:', run.counted)
    return refused
  end
  local bounded = refused and config[#fields - 1]
  -- One that replaces another adds nobody.
  local replaces = bounded and run.replaces
    and redis.call('HEXISTS', key('newest'), without_weight(group) .. ' ' .. run.task) == 1
  local given_up = bounded and not replaces and refuse_to_wait(group, waited and waited.place,
    run.has_begun, waited and waited.received)
  if given_up then
    never_refuse()
    count(given_up[1] .. ':', run.counted)
    return given_up
  elseif refused then
    refused[#refused + 1] = waited and waited.place or take_ticket(run.rank)
    count('denied:', run.counted)
    return refused
  end
  for i = 1, #limits do
    if weight == 1 then
      redis.call('ZADD', semaphores[i], expiry, token)
    else
      redis.call('ZADD', semaphores[i],
        until_expiry(expiry, token, places_in(limits[i], weight)))
    end
  end
end
if any_has and not reserved then
  note_start(token, limits, time)
end
if cooling and not reserved and not run.begun and config[1] == '1' then
  note_probe(token, limits)
end
count('acquired:', run.counted)
redis.call('ZADD', key('leases'), run.lease and math.min(expiry, time + run.lease) or expiry, token)

-- The server's time in microseconds, which grows even if Redis lost its data. If the clock
-- went back, the last number plus one.
local fence = math.floor(time * 1000000 + 0.5)
local last = redis.call('SET', key('fence'), fence, 'GET')
if last and tonumber(last) >= fence then
  fence = tonumber(last) + 1
  redis.call('SET', key('fence'), fence)
end

local asked = waited and waited.place or run.rank * RANK + math.floor(time * 1000)
redis.call('HSET', record, 'limits', group, 'task', run.task, 'worker', run.worker,
  'since', exact(time), 'asked', asked, 'fence', fence)
if parked then
  redis.call('HSET', record, 'parked_as', waited.parked_as)
  redis.call('SET', key('begun', waited.parked_as), token, 'EX', run.copies)
end
if config[#fields] then
  observe_start(token, limits, config[#fields])
end
return {'granted', expiry, fence}
