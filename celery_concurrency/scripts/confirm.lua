-- confirm: the broker has a message of the outbox, which is never sent again.
--
-- KEYS   1 the prefix
-- ARGV   1 its number, as claim replied it
-- Reply  1 if it was still there, else 0
-- Cost   two commands
-- Again  a second copy finds nothing.
-- OOM    done

redis.call('DEL', key('outbox', ARGV[1]))
return redis.call('ZREM', key('outbox'), ARGV[1])
