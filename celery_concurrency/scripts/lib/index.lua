-- The index over waiters: a call that frees room finds the waiter that can go on, and never
-- looks at those that can't.
--
-- A *group* is all waiters with exactly the same limits; its name is the limits as JSON. Its
-- *class* is the limits that many groups share (platform, task type), as JSON; its *own* limits
-- are the others (account, the user's dimensions). `global` is checked before the index, so
-- nothing is filed under it. A *bucket* is the groups of one class that are filed under the same
-- own limit. Each set is ordered by the ticket of its first waiter:
--
--   open            classes whose shared limits have room
--   ready:<class>   own limits with room, each for its bucket of that class
--   bucket:<class><own limit>   groups
--   group:<group>   waiters
--   shut:<limit>    classes that wait for a full limit: for a shared limit, they are not open;
--                   for an own limit, their bucket is not ready
--   moments         limits with such classes that open by themselves, and when: one entry per
--                   limit for all of its waiters
--
-- One waiter W, of group G = ["global", "platform:x", "account:a"], class C = ["platform:x"]:
--
--   park       account:a is full      group:G {W}   bucket:C account:a {G}
--                                     shut:account:a {C}
--                 │
--   release    account:a has room     freed {account:a}
--                 │
--   reopen     C leaves shut:         ready:C {account:a}
--                 │
--              platform:x has room    open {C}          ── it is full ──▶  shut:platform:x {C}
--                 │                      ▲                                    │
--                 │                      └── release of platform:x, reopen ◀──┘
--   hand over  the first of each level: open ▶ C, ready:C ▶ account:a,
--              bucket:C account:a ▶ G, group:G ▶ W
--
-- A group is in one bucket only: that of its first full own limit, or of its first own limit if
-- none is full. An entry may be out of date, because limits fill up all the time. The call that
-- finds it files it again, so each is looked at once for each room that it missed.

-- include limits
-- include capacity

-- The own limit of groups that have none; it is never full.
local NOTHING = ''

local parsed = {}

-- Return a group's limits, its class, and its own limits.
local function parse(group)
  local found = parsed[group]
  if not found then
    found = { limits = cjson.decode(group), own = {} }
    local shared = {}
    for _, limit in ipairs(found.limits) do
      if is_shared(limit) then
        shared[#shared + 1] = limit
      elseif limit ~= 'global' then
        found.own[#found.own + 1] = limit
      end
    end
    found.class = cjson.encode(shared)
    if #found.own == 0 then
      found.own[1] = NOTHING
    end
    parsed[group] = found
  end
  return found
end

local function bucket_key(class, own)
  return key('bucket', class .. own)
end

-- Return the first member of a sorted set and its score, or nil.
local function first(set)
  local found = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  return found[1], found[2]
end

local function is_full(limit)
  return limit ~= NOTHING and room(limit) <= 0
end

local function first_full(limits)
  for _, limit in ipairs(limits) do
    if is_full(limit) then
      return limit
    end
  end
  return nil
end

local function blocked_key(limit)
  return key(is_shared(limit) and 'blocked:shared' or 'blocked:own')
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

local function shut(limit, class, ticket)
  redis.call('ZADD', key('shut', limit), ticket, class)
  redis.call('ZADD', blocked_key(limit), 'NX', time, limit)
  file_moment(limit)
end

-- File a class: open, or under its first shared limit that is full.
local function file_class(class)
  local shared = cjson.decode(class)
  local _, ticket = first(key('ready', class))
  local full = ticket and first_full(shared)
  for _, limit in ipairs(shared) do
    if limit ~= full then
      redis.call('ZREM', key('shut', limit), class)
    end
  end
  if ticket and not full then
    redis.call('ZADD', key('open'), ticket, class)
  else
    redis.call('ZREM', key('open'), class)
    if full then
      shut(full, class, ticket)
    end
  end
end

-- File a bucket: ready, or under its limit if that is full. Then its class.
local function file_bucket(class, own)
  local _, ticket = first(bucket_key(class, own))
  local full = ticket and is_full(own)
  if ticket and not full then
    redis.call('ZADD', key('ready', class), ticket, own)
  else
    redis.call('ZREM', key('ready', class), own)
  end
  if full then
    shut(own, class, ticket)
  else
    redis.call('ZREM', key('shut', own), class)
  end
  file_class(class)
end

-- File a group in the bucket it belongs to now, or nowhere if it has no waiters.
local function file_group(group)
  local found = parse(group)
  local _, ticket = first(key('group', group))
  local bucket = ticket and (first_full(found.own) or found.own[1])
  for _, own in ipairs(found.own) do
    if own ~= bucket and redis.call('ZREM', bucket_key(found.class, own), group) == 1 then
      file_bucket(found.class, own)
    end
  end
  if bucket then
    redis.call('ZADD', key('groups'), ticket, group)
    redis.call('ZADD', bucket_key(found.class, bucket), ticket, group)
    file_bucket(found.class, bucket)
  else
    redis.call('ZREM', key('groups'), group)
  end
end

-- File again what is shut under a limit while it has room. Return the steps that are left.
local function reopen(limit, steps)
  while steps > 0 and room(limit) > 0 do
    local class = redis.call('ZPOPMIN', key('shut', limit))[1]
    if not class then
      redis.call('ZREM', blocked_key(limit), limit)
      redis.call('SREM', key('freed'), limit)
      return steps
    end
    if is_shared(limit) then
      file_class(class)
    else
      file_bucket(class, limit)
    end
    steps = steps - 1
  end
  if room(limit) <= 0 then
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

-- Check whether blocked limits have room by now: an operator's DEL and a raised limit notify
-- nobody. Begin with those that were checked longest ago, and leave out those checked since
-- `before`. Return the steps that are left.
local function recheck(blocked, before, steps)
  local limits = redis.call('ZRANGEBYSCORE', blocked, '-inf', '(' .. exact(before),
    'LIMIT', 0, steps)
  for _, limit in ipairs(limits) do
    if redis.call('EXISTS', key('shut', limit)) == 0 then
      redis.call('ZREM', blocked, limit)
    else
      redis.call('ZADD', blocked, time, limit)
      if room(limit) <= 0 and drop_orphans(limit) then
        rooms[limit] = nil
      end
      if room(limit) > 0 then
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
    steps = recheck(key('blocked:shared'), before, steps)
    steps = recheck(key('blocked:own'), before, steps)
    if steps > 0 then
      redis.call('DEL', key('recheck'))
    end
  end
  return steps
end
