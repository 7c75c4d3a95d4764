-- The time of this call, by the server's clock in Unix seconds, and its stored form.

local clock = redis.call('TIME')
local time = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

-- Return seconds as text, to the microsecond: Lua itself would round to tenths.
local function exact(seconds)
  return string.format('%.6f', seconds)
end
