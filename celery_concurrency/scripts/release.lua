-- release: give a run's tokens back.
--
-- KEYS   1 the prefix
-- ARGV   1 token
--        2 seconds for which a mark is left, 0 for none: while it stands, an
--          acquire of this token that arrives late is refused. Needed wherever
--          a reply to that acquire may never have been seen.
-- Reply  1 if the token was held, else 0
-- Cost   one removal a limit
-- Again  what is given back already is not held, so nothing is done or counted;
--        a mark set again only lasts from then.

local token, mark = ARGV[1], tonumber(ARGV[2])

local held = drop(token)
if held then
  redis.call('HINCRBY', COUNTERS, 'released:total', 1)
end
if mark > 0 then
  mark_ended(token, mark)
end
return held and 1 or 0
