-- Places: a run of weight n takes n places in each limit that many kinds of work share (`global`,
-- platform, task type), and one in its others.
--
-- A token holds a place by a member of the semaphore: by its name, and by that with '#2' to '#n',
-- so ZCARD counts places. No token's name ends so: it ends in the hexadecimal digits of its run, or
-- in a word of ours.

-- include groups
-- include limits when is_shared is called

-- Return how many places a run of this weight takes in a limit.
local function places_in(limit, weight)
  if weight == 1 or limit ~= 'global' and not is_shared(limit) then
    return 1
  end
  return weight
end

-- Return the members by which a token holds so many places, each an argument of a command.
local function members(token, places)
  if places == 1 then
    return token
  end
  local names = { token }
  for i = 2, places do
    names[i] = token .. '#' .. i
  end
  return unpack(names)
end

-- Return the members by which a token of this weight holds a limit.
local function members_in(limit, token, weight)
  return members(token, places_in(limit, weight))
end

-- Return so many members, each behind its expiry, as for ZADD.
local function until_expiry(expiry, token, places)
  if places == 1 then
    return expiry, token
  end
  local pairs_ = {}
  for i, member in ipairs({ members(token, places) }) do
    pairs_[2 * i - 1], pairs_[2 * i] = expiry, member
  end
  return unpack(pairs_)
end

-- Return the token that a member of a semaphore belongs to.
local function token_of(member)
  return string.match(member, '^(.*)#%d+$') or member
end
