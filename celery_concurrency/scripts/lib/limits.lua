-- Which limits many groups of waiters share.

-- constants SHARED_DIMENSIONS

-- Return whether a limit's dimension is one of those that many groups share. `global`,
-- which all share, is none of them.
local function is_shared(limit)
  local dimension = string.match(limit, '^([^:]*):')
  for _, shared in ipairs(SHARED_DIMENSIONS) do
    if dimension == shared then
      return true
    end
  end
  return false
end
