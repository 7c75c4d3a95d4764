-- trim: remove what is counted of limits without a name: one step of a walk over all of it.
--
-- An earlier version counted every platform and task type that ever ran, for ever, and copied
-- all of them each minute. Now a limit gets a name if there is room, and loses it if unused.
--
-- KEYS   1 the prefix
-- ARGV   1 about how many fields to look at
-- Reply  1 if the walk has come to its end, 0 if there is more
-- Cost   four commands per limit of those fields; it reads four copies
-- Again  a second copy of the call takes the next step; after its end the walk begins again.
-- OOM    done: it frees more than it writes

-- include named
-- constants BY_LIMIT, SHARED_DIMENSIONS, TOTALS

-- How many copies to read, and how many counters a copy with only named limits has.
local COPIES, COUNTERS_MOST = 4, #TOTALS + #BY_LIMIT * (#SHARED_DIMENSIONS + 2 * NAMED_MOST)

local kept = {}

-- Remove some fields of a hash that belong to limits without a name; return the cursor.
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

-- Judge a copy by its fields, not its bytes: names may be long.
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
