-- Which limits many groups of waiters share.

-- constants SHARED

-- Return whether a limit's dimension is one of those that many groups share. `global`,
-- which all share, is none of them.
local function is_shared(limit)
  for _, dimension in ipairs(SHARED) do
    if string.find(limit, dimension .. ':', 1, true) == 1 then
      return true
    end
  end
  return false
end
