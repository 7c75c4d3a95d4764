-- The time of this call, and how it is stored: the server's, in Unix seconds.

local clock = redis.call('TIME')
local time = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

-- Return seconds as text, to the microsecond: what Lua itself writes is rounded to tenths.
local function exact(seconds)
  return string.format('%.6f', seconds)
end
