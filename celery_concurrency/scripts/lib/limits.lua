-- Limits: which limits many groups of waiters share.

-- constants SHARED_DIMENSIONS

-- Return whether many groups share a limit's dimension. `global` has none.
local function is_shared(limit)
  local dimension = string.match(limit, '^([^:]*):')
  for _, shared in ipairs(SHARED_DIMENSIONS) do
    if dimension == shared then
      return true
    end
  end
  return false
end
