-- trim: take out what is counted of limits without a name: a step of a walk over all of it.
--
-- A former version counted every platform and task type that ever ran, for ever, and copied
-- all of them each minute. What there is room for gets a name, and goes if nobody uses it.
--
-- KEYS   1 the prefix
-- ARGV   1 how many fields are looked at, about
-- Reply  1 if the walk has come to its end, 0 if there is more
-- Cost   four commands a limit of those fields; of copies it reads four
-- Again  a second copy of the call takes the next step; the walk begins anew after its end.
-- OOM    done: it frees more than it writes

-- include named
-- constants BY_LIMIT, SHARED_DIMENSIONS, TOTALS

-- Copies, and the counters of one that has names only.
local COPIES, COUNTERS_MOST = 4, #TOTALS + #BY_LIMIT * (#SHARED_DIMENSIONS + 2 * NAMED_MOST)

local kept = {}

-- Take out some fields of a hash that belong to a limit without a name; return the cursor.
local function trim_hash(hash, cursor, pattern)
  local next_cursor, found = unpack(redis.call('HSCAN', hash, cursor, 'COUNT', ARGV[1]))
  for i = 1, #found, 2 do
    local limit = string.match(found[i], pattern)
    if limit then
      if kept[limit] == nil then
        kept[limit] = admit(limit)
      end
      if not kept[limit] then
        redis.call('HDEL', hash, found[i])
      end
    end
  end
  return next_cursor
end

-- Not by its bytes: names may be long.
local function is_of_former_version(copy)
  local _, counters = string.gsub(copy, '": ?"', '', COUNTERS_MOST + 1)
  return counters > COUNTERS_MOST
end

local function trim_copies(cursor)
  local copies = redis.call('XRANGE', key('stats:history'), cursor == '0' and '-' or '(' .. cursor,
    '+', 'COUNT', COPIES)
  for _, copy in ipairs(copies) do
    if is_of_former_version(copy[2][2]) then
      redis.call('XDEL', key('stats:history'), copy[1])
    end
  end
  return #copies == COPIES and copies[COPIES][1] or '0'
end

local STEPS = {
  counters = function(cursor) return trim_hash(key('stats:counters'), cursor, '^%a+:(.+:.*)$') end,
  times = function(cursor) return trim_hash(key('stats:times'), cursor, '^%a+ %S+ (.+:.*)$') end,
  copies = trim_copies,
}
local FOLLOWS = { counters = 'times', times = 'copies' }

never_refuse()
local at = redis.call('GET', key('stats:trimmed')) or 'counters 0'
local place, cursor = string.match(at, '^(%a+) ([%d-]+)$')
if not STEPS[place] then
  place, cursor = 'counters', '0'
end
cursor = STEPS[place](cursor)
if cursor == '0' then
  place = FOLLOWS[place]
end
if not place then
  redis.call('DEL', key('stats:trimmed'))
  return 1
end
redis.call('SET', key('stats:trimmed'), place .. ' ' .. cursor)
return 0
