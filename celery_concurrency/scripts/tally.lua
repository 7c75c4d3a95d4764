-- tally: count the records that ended runs left, how long each waited and held, in histograms.
--
-- KEYS   1 the prefix
-- ARGV   1 how many records at most   2 seconds of an interval that has a separate hash
--        3 seconds after its interval for which such a hash is kept
--        4.. upper bounds of the histogram in milliseconds, ascending
-- Reply  how many were counted
-- Cost   a read of each record, four commands per counted limit, and one write per field
--        that changes: at most one for each of two kinds, bound and limit
-- Again  a record is removed as it is counted; a second copy counts the next ones.
-- OOM    done: it frees more than it writes
--
-- A field is "<wait|hold> <upper bound, inf, or sum> <limit>": how many were below that
-- bound and above the one before, or the sum of their milliseconds. Accounts are never
-- counted, and of the user's own dimensions only limits that the configuration names; limits
-- without a name (see named.lua) are counted together.

-- include limits
-- include named
-- include groups
-- constants RANK

local bounds = {}
for i = 4, #ARGV do
  bounds[#bounds + 1] = tonumber(ARGV[i])
end

local function bound_of(milliseconds)
  for i, bound in ipairs(bounds) do
    if milliseconds <= bound then
      return ARGV[3 + i]
    end
  end
  return 'inf'
end

local function is_counted(limit)
  local dimension = string.match(limit, '^[^:]*')
  return limit == 'global' or is_shared(limit)
    or (dimension ~= 'account' and redis.call('HEXISTS', key('config:flat'), limit) == 1)
end

-- Return the name under which a limit is counted: its own, or that of its dimension's others.
local function counted_as(limit)
  if limit == 'global' then
    return limit
  elseif not admit(limit) then
    return other_of(limit)
  end
  redis.call('ZADD', key('stats:named'), time, limit)
  return limit
end

local known, as = {}, {}

-- Return the names under which a group's limits are counted; many runs share a group.
local function counted_of(group)
  if not known[group] then
    known[group] = {}
    for _, limit in ipairs((limits_in(group))) do
      if is_counted(limit) then
        as[limit] = as[limit] or counted_as(limit)
        table.insert(known[group], as[limit])
      end
    end
  end
  return known[group]
end

local sums = {}

local function add(field, amount)
  sums[field] = (sums[field] or 0) + amount
end

local function count(kind, milliseconds, limits)
  milliseconds = math.max(0, milliseconds)
  local bucket = kind .. ' ' .. bound_of(milliseconds) .. ' '
  for _, limit in ipairs(limits) do
    add(bucket .. limit, 1)
    add(kind .. ' sum ' .. limit, milliseconds)
  end
end

local records = redis.call('LPOP', key('stats:ended'), ARGV[1]) or {}
for _, record in ipairs(records) do
  local asked, since, ended, group = string.match(record, '^(%S+) (%S+) (%S+) (.*)$')
  if asked then
    local limits = counted_of(group)
    count('wait', math.floor(since * 1000) - asked % RANK, limits)
    count('hold', math.floor((ended - since) * 1000), limits)
  end
end
if #records == 0 then
  return 0
end

local seconds = tonumber(ARGV[2])
local start = math.floor(time / seconds) * seconds
local interval = key('stats:times', string.format('%.0f', start))
for field, sum in pairs(sums) do
  local amount = string.format('%.0f', sum)
  redis.call('HINCRBY', key('stats:times'), field, amount)
  redis.call('HINCRBY', interval, field, amount)
end
redis.call('EXPIREAT', interval, string.format('%.0f', start + seconds + tonumber(ARGV[3])))
return #records
