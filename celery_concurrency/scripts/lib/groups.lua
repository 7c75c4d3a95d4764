-- Groups: all runs with exactly the same limits and the same weight. A group's name is the limits
-- as JSON, and the weight behind them if that is more than 1: ["global", "platform:x", 3].

-- Return the limits of a group or a class, and its weight.
local function limits_in(group)
  local limits, weight = cjson.decode(group), 1
  if type(limits[#limits]) == 'number' then
    weight = table.remove(limits)
  end
  return limits, weight
end

-- Return the name of the group with the same limits and no weight.
local function without_weight(group)
  return (string.gsub(group, ', %d+%]$', ']'))
end
