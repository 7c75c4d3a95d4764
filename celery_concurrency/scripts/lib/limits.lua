-- Which limits many groups of waiters share.

-- constants SHARED

-- Return whether a limit's dimension is one of those that many groups share. `global`,
-- which all share, is none of them.
local function is_shared(limit)
  local dimension = string.match(limit, '^([^:]*):')
  for _, shared in ipairs(SHARED) do
    if dimension == shared then
      return true
    end
  end
  return false
end
