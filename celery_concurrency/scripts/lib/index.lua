-- The index over waiters: a call that frees room finds the waiter that can go on, and never
-- looks at those that can't.
--
-- A *group* is all waiters with exactly the same limits and the same weight; its name is both as
-- JSON (see groups.lua). Its *class* is the limits that many groups share (platform, task type), as
-- JSON; its *own* limits are the others (account, the user's dimensions). `global` is checked before
-- the index, so nothing is filed under it; but a heavy group (weight 2 or more) may need more room
-- there, so its class has `global` too, and its weight. A *bucket* is the groups of one class that
-- are filed under the same own limit: the only one of them without other own limits, whose name is
-- known and stored nowhere, and those with several. Each set is ordered by the ticket of its first
-- waiter:
--
--   open            classes whose shared limits have room
--   ready:<class>   own limits with room, each for its bucket of that class
--   bucket:<class><own limit>   groups with several own limits
--   group:<group>   waiters
--   shut:<limit>    classes that wait for a full limit: for a shared limit, they are not open;
--                   for an own limit, their bucket is not ready
--   heavy:<weight>:<limit>   the same for a limit in which they take so many places
--   weights:<limit> the weights for which there is such a set, by weight
--
-- If a dimension is fair, a class is divided into *flows*, one for each name of that dimension.
-- Its buckets are those of its flows, which are ordered by shares.lua, and so is the class:
--
--   open            classes
--   flows:<class>   flows with own limits that have room
--   ready:<flow>    own limits with room, and so on, each ordered by tickets
--   shut:<limit>    classes for a shared limit, flows for an own one
--
--   moments         limits with such classes that open by themselves, and when: one entry per
--                   limit for all of its waiters
--
-- One waiter W, of group G = ["global", "platform:x", "account:a"], class C = ["platform:x"]:
--
--   park       account:a is full      group:G {W}   shut:account:a {C}
--                 │
--   release    account:a has room     freed {account:a}
--                 │
--   reopen     C leaves shut:         ready:C {account:a}
--                 │
--              platform:x has room    open {C}          ── it is full ──▶  shut:platform:x {C}
--                 │                      ▲                                    │
--                 │                      └── release of platform:x, reopen ◀──┘
--   hand over  the first of each level: open ▶ C, ready:C ▶ account:a,
--              C and account:a ▶ G, group:G ▶ W
--
-- A group is in one bucket only: that of its first full own limit, or of its first own limit if
-- none is full. An entry may be out of date, because limits fill up all the time. The call that
-- finds it files it again, so each is looked at once for each room that it missed.

-- include limits
-- include capacity
-- include shares

-- The own limit of groups that have none; it is never full.
local NOTHING = ''

-- Return the name that Python gives the group with these limits: in the order of limits_of
-- (limiter/limits.py), as JSON (group_of in limiter/waiters.py).
local function name_lone_group(class, own)
  local limits, is_account = { 'global' }, string.find(own, '^account:')
  local shared, weight = limits_in(class)
  if weight > 1 then
    table.remove(shared, 1) -- `global`
  end
  for i = 1, #shared + 1 do
    local limit = shared[i]
    if own ~= NOTHING and (not limit or is_account and string.find(limit, '^task_type:')) then
      limits[#limits + 1], own = own, NOTHING
    end
    limits[#limits + 1] = limit
  end
  for i, limit in ipairs(limits) do
    limits[i] = string.gsub(limit, '["\\]', '\\%0')
  end
  return '["' .. table.concat(limits, '", "') .. '"' .. (weight > 1 and ', ' .. weight or '') .. ']'
end

local lone_groups = {}

-- Return the only group of a class that has this own limit and no other.
local function lone_group(class, own)
  local bucket = class .. own
  lone_groups[bucket] = lone_groups[bucket] or name_lone_group(class, own)
  return lone_groups[bucket]
end

local parsed = {}

-- Return a group's limits and weight, its class and flow, its name in the fair dimension, its own
-- limits, and whether it is the lone group of its bucket. A class that is divided begins with that
-- dimension, `["tenant","platform:x"]`, and a flow with its class; a class that is not is its only
-- flow.
local function parse(group)
  local found = parsed[group]
  if not found then
    found = { own = {}, name = '' }
    found.limits, found.weight = limits_in(group)
    local shared, is_heavy = { fair or nil }, found.weight > 1
    for _, limit in ipairs(found.limits) do
      local is_name = fair and string.sub(limit, 1, #fair + 1) == fair .. ':'
      if is_name then
        found.name = limit
      end
      if is_shared(limit) and not is_name or is_heavy and limit == 'global' then
        shared[#shared + 1] = limit
      elseif limit ~= 'global' then
        found.own[#found.own + 1] = limit
      end
    end
    if is_heavy then
      shared[#shared + 1] = found.weight
    end
    found.class = cjson.encode(shared)
    found.flow = fair and found.class .. '\n' .. found.name or found.class
    if #found.own == 0 then
      found.own[1] = NOTHING
    end
    -- If Python writes a name in another way, the group is in its bucket like any other.
    found.is_lone = not fair and #found.own == 1
      and lone_group(found.class, found.own[1]) == group
    parsed[group] = found
  end
  return found
end

local classes = {}

-- Return the shared limits and the weight of a class, whether it is divided into flows, and whether
-- it is older than the fair dimension that there is now.
local function parse_class(class)
  local found = classes[class]
  if not found then
    local limits, weight = limits_in(class)
    local is_divided = #limits > 0 and limits[1] ~= 'global'
      and not string.find(limits[1], ':', 1, true)
    local by = is_divided and table.remove(limits, 1)
    found = { shared = limits, weight = weight, is_divided = is_divided,
      is_older = by ~= (fair or false) }
    classes[class] = found
  end
  return found
end

-- Return the class of a flow.
local function class_of(flow)
  return string.match(flow, '^[^\n]*')
end

local function bucket_key(flow, own)
  return key('bucket', flow .. own)
end

-- Return the first member of a sorted set and its score, or nil.
local function first(set)
  local found = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  return found[1], found[2]
end

-- Return the first group of a bucket and its ticket, or nil.
local function first_group(flow, own)
  local bucket = bucket_key(flow, own)
  local group, its = first(bucket)
  if fair or class_of(flow) ~= flow then
    return group, its
  end
  local lone = lone_group(flow, own)
  local _, ticket = first(key('group', lone))
  if group == lone then
    -- An older version has filed it.
    redis.call('ZREM', bucket, lone)
    group, its = first(bucket)
  end
  if ticket and not (its and tonumber(its) < tonumber(ticket)) then
    return lone, ticket
  end
  return group, its
end

-- Return whether a limit has too little room for a run of this weight.
local function is_full(limit, weight)
  return limit ~= NOTHING and not has_room(limit, weight)
end

local function first_full(limits, weight)
  for _, limit in ipairs(limits) do
    if is_full(limit, weight) then
      return limit
    end
  end
  return nil
end

local function blocked_key(limit)
  return key((limit == 'global' or is_shared(limit)) and 'blocked:shared' or 'blocked:own')
end

-- Return the set of what waits for so many places of a limit.
local function shut_key(limit, places)
  return places == 1 and key('shut', limit) or key('heavy:' .. places, limit)
end

-- Note the moment at which a limit opens by itself, if it does.
local function file_moment(limit)
  if not (cooling or is_rated(limit)) then
    return
  end
  local moment = closed_until(limit)
  if moment > 0 and moment < math.huge then
    redis.call('ZADD', key('moments'), exact(moment), limit)
  end
end

local function shut(limit, class, ticket, weight)
  local taken = places_in(limit, weight)
  redis.call('ZADD', shut_key(limit, taken), ticket, class)
  if taken > 1 then
    redis.call('ZADD', key('weights', limit), taken, taken)
  end
  redis.call('ZADD', blocked_key(limit), 'NX', time, limit)
  file_moment(limit)
end

-- File a class: open, or under its first shared limit that is full.
local function file_class(class)
  local found = parse_class(class)
  local _, ticket = first(found.is_divided and key('flows', class) or key('ready', class))
  if ticket and found.is_older then
    -- Before all others: tickets and tags don't compare.
    ticket = rank_in(ticket) * RANK
  end
  local full = ticket and first_full(found.shared, found.weight)
  for _, limit in ipairs(found.shared) do
    if limit ~= full then
      redis.call('ZREM', shut_key(limit, places_in(limit, found.weight)), class)
    end
  end
  if ticket and not full then
    redis.call('ZADD', key('open'), ticket, class)
  else
    redis.call('ZREM', key('open'), class)
    if full then
      shut(full, class, ticket, found.weight)
    end
  end
end

-- File a flow in its class, and the class.
local function file_flow(flow)
  local class = class_of(flow)
  if class ~= flow then
    local _, ticket = first(key('ready', flow))
    file_in_class(class, flow, ticket)
  end
  file_class(class)
end

local file_group

-- File a bucket: ready, or under its limit if that is full. Then its flow.
local function file_bucket(flow, own)
  if fair and class_of(flow) == flow then
    -- No dimension was fair when its lone group was filed.
    local lone = lone_group(flow, own)
    if redis.call('EXISTS', key('group', lone)) == 1 then
      file_group(lone)
    end
  end
  local _, ticket = first_group(flow, own)
  local weight = parse_class(class_of(flow)).weight
  local full = ticket and is_full(own, weight)
  if ticket and not full then
    redis.call('ZADD', key('ready', flow), ticket, own)
  else
    redis.call('ZREM', key('ready', flow), own)
  end
  if full then
    shut(own, flow, ticket, weight)
  else
    redis.call('ZREM', shut_key(own, places_in(own, weight)), flow)
  end
  file_flow(flow)
end

-- File a group in the bucket it belongs to now, or nowhere if it has no waiters.
function file_group(group)
  local found = parse(group)
  local _, ticket = first(key('group', group))
  if ticket then
    redis.call('ZADD', key('groups'), ticket, group)
  else
    redis.call('ZREM', key('groups'), group)
  end
  if found.is_lone then
    return file_bucket(found.class, found.own[1])
  end
  local bucket = ticket and (first_full(found.own, found.weight) or found.own[1])
  for _, own in ipairs(found.own) do
    if own ~= bucket and redis.call('ZREM', bucket_key(found.flow, own), group) == 1 then
      file_bucket(found.flow, own)
    end
  end
  if bucket then
    redis.call('ZADD', bucket_key(found.flow, bucket), ticket, group)
    file_bucket(found.flow, bucket)
  end
end

-- Return the weights that wait for a limit and take more than one place there, ascending.
local function weights_of(limit)
  local weights = {}
  for _, text in ipairs(redis.call('ZRANGE', key('weights', limit), 0, -1)) do
    local weight = tonumber(text)
    if redis.call('EXISTS', shut_key(limit, weight)) == 1 then
      table.insert(weights, weight)
    else
      redis.call('ZREM', key('weights', limit), text)
    end
  end
  return weights
end

-- File again what is shut under a limit and takes so many places there, while it has room for that.
-- Return the steps that are left.
local function reopen_weight(limit, places, steps)
  while steps > 0 and has_room(limit, places) do
    local found = redis.call('ZPOPMIN', shut_key(limit, places))[1]
    if not found then
      redis.call('ZREM', key('weights', limit), places)
      break
    end
    if (limit == 'global' or is_shared(limit)) and class_of(found) == found then
      file_class(found)
    else
      file_bucket(found, limit)
    end
    steps = steps - 1
  end
  return steps
end

-- File again what is shut under a limit while it has room. Return the steps that are left.
local function reopen(limit, steps)
  steps = reopen_weight(limit, 1, steps)
  for _, weight in ipairs(weights_of(limit)) do
    steps = reopen_weight(limit, weight, steps)
  end
  if redis.call('EXISTS', key('shut', limit), key('weights', limit)) == 0 then
    redis.call('ZREM', blocked_key(limit), limit)
    redis.call('SREM', key('freed'), limit)
  elseif steps > 0 or room(limit) <= 0 then
    -- What is left finds too few places.
    redis.call('SREM', key('freed'), limit)
    file_moment(limit)
  end
  return steps
end

-- Note as freed the limits whose moment has come, at most this many.
local function free_due(most)
  local limits = redis.call('ZRANGEBYSCORE', key('moments'), '-inf', exact(time), 'LIMIT', 0, most)
  for _, limit in ipairs(limits) do
    redis.call('ZREM', key('moments'), limit)
  end
  note_freed(limits)
  return #limits
end

-- File again what is shut under the limits that were freed. Return the steps that are left.
local function reopen_freed(steps)
  while steps > 0 do
    local limit = redis.call('SRANDMEMBER', key('freed'))
    if not limit then
      break
    end
    steps = reopen(limit, steps - 1)
  end
  return steps
end

-- Return the least weight that waits for a limit, or the least for which that has room; nil if
-- nobody waits for it.
local function weight_with_room(limit)
  if redis.call('EXISTS', key('shut', limit)) == 1 then
    return 1
  end
  local weights = weights_of(limit)
  for _, weight in ipairs(weights) do
    if has_room(limit, weight) then
      return weight
    end
  end
  return weights[1]
end

-- Check whether blocked limits have room by now: an operator's DEL and a raised limit notify
-- nobody. Begin with those that were checked longest ago, and leave out those checked since
-- `before`. Return the steps that are left.
local function recheck(blocked, before, steps)
  local limits = redis.call('ZRANGEBYSCORE', blocked, '-inf', '(' .. exact(before),
    'LIMIT', 0, steps)
  for _, limit in ipairs(limits) do
    local weight = weight_with_room(limit)
    if not weight then
      redis.call('ZREM', blocked, limit)
    else
      redis.call('ZADD', blocked, time, limit)
      if not has_room(limit, weight) and drop_orphans(limit) then
        rooms[limit] = nil
      end
      if has_room(limit, weight) then
        redis.call('SADD', key('freed'), limit)
      else
        file_moment(limit)
      end
    end
  end
  return steps - #limits
end

-- After a change of the configuration, check all blocked limits once. Return the steps left.
local function recheck_all(steps)
  local before = tonumber(redis.call('GET', key('recheck')) or nil)
  if before then
    for _, class in ipairs(redis.call('ZRANGE', key('open'), -steps, -1)) do
      if parse_class(class).is_older then
        file_class(class)
      end
    end
    steps = recheck(key('blocked:shared'), before, steps)
    steps = recheck(key('blocked:own'), before, steps)
    if steps > 0 then
      redis.call('DEL', key('recheck'))
    end
  end
  return steps
end
