-- confirm: the broker has a message of the outbox, which is never sent again.
--
-- KEYS   1 the prefix
-- ARGV   1.. numbers of messages, as claim replied them
-- Reply  how many were still there
-- Cost   two commands a message
-- Again  a second copy finds nothing.

-- include keys

for _, number in ipairs(ARGV) do
  redis.call('DEL', key('outbox', number))
end
return redis.call('ZREM', key('outbox'), unpack(ARGV))
