-- tokens: list the living tokens, the soonest to expire first, a page at a time. A limit has a
-- token several times if that is heavy (lib/places.lua): it is listed once.
--
-- KEYS   1 the prefix
-- ARGV   1 a limit, to list its tokens only; '' for all
--        2 how many at most
--        3 the expiry and 4 the token at the end of the previous page; '' and ''
--          for the first page
-- Reply  {total, {token, expiry, limits, task, worker, since, reserved}, ...}: total
--        is how many there are on all pages, of a limit how many places they take; facts that a
--        record lacks are nil
-- Cost   one read per token listed, and the logarithm in a sorted set; it also reads the members of
--        heavy tokens, WEIGHT_MOST times as many at most
-- Again  it changes nothing. A token that is renewed between two pages comes again on a
--        later page; no token that is held all the time is left out.
-- OOM    done

-- include places

local holders = ARGV[1] == '' and key('leases') or key('semaphore', ARGV[1])
local dead = redis.call('ZCOUNT', holders, '-inf', time)
local start = dead
if ARGV[3] ~= '' then
  if tonumber(redis.call('ZSCORE', holders, ARGV[4]) or -1) == tonumber(ARGV[3]) then
    start = redis.call('ZRANK', holders, ARGV[4]) + 1
  else
    -- The last one has moved or gone: begin with the tokens that have the same expiry.
    start = redis.call('ZCOUNT', holders, '-inf', '(' .. ARGV[3])
  end
  start = math.max(start, dead)
end

local reply = {redis.call('ZCARD', holders) - dead}
repeat
  local page = redis.call('ZRANGE', holders, start, start + ARGV[2] - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    if #reply <= tonumber(ARGV[2]) and token_of(page[i]) == page[i] then
      local record = redis.call('HMGET', key('token', page[i]),
        'limits', 'task', 'worker', 'since', 'reserved')
      reply[#reply + 1] = {page[i], page[i + 1], unpack(record)}
    end
  end
  start = start + ARGV[2]
until #page < 2 * ARGV[2] or #reply > tonumber(ARGV[2])
return reply
