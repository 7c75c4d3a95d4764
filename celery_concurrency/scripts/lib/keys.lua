-- Keys: the name of each key that the scripts use, and how it is built.
--
-- Tokens
--   semaphore:<limit>   token → its expiry
--   rate:<limit>        token → when its run began (see moments.lua)
--   cooldowns           limit that cools down → until when
--   cooldown:<limit>    its reason, and who started it; on probation how long it lasted, and
--                       which run is the probe (see probes.lua)
--   cooled:<call>       the reply of a call that set or lifted one
--   probes              limit that a refusal shut and that needs a probe → when its cool-down
--                       ends or ended
--   refused:<token>     limits in which a run was refused → the reply to that report
--   adaptive            limit that has moved by itself → when it last did (see adaptive.lua)
--   adaptive:<limit>    its own maximum, if that is not the highest; since when nothing moved it
--                       or was refused; when it fell last
--   moves:<limit>       a stream of its moves
--   adaptive:unlogged   moves that no worker has logged
--   adaptive:history    a stream of what was in force, and what ran, minute by minute
--   leases              token → when it is taken back unless it is renewed
--   workers             worker → when its tokens are taken back if it stays silent
--   worker:<worker>     when it last beat, and what it says of itself
--   token:<token>       its record, and the marks that refuse late calls
--   fence               the last fencing number
--   epoch               when the data here began: older runs may still live
--   sweep:next          when the next sweep is due
--   sweep:grace         exists while no token is taken back
--
-- Configuration and statistics
--   config              the JSON
--   config:flat         the part that scripts read: a setting or limit → its value
--   config:rates        limit or wildcard → its rates, as '1/30 15/86400'
--   config:observed     kind, and limit or wildcard → what is only observed: '5', '1/30 15/86400'
--   config:adaptive     the same of adaptive limits: min, max, decrease, every and mode
--   config:version      its number
--   config:history      a stream of the changes
--   observed:<kind> <entry>      what an observed maximum or rate would have turned away
--   observed:starts:<limit>      token → when its run would have begun by observed rates
--   observed:undecided:<limit>   token → when its run asked; when it would begin is not known
--   observed:ended:<limit>       if such a run has ended: token → how long it held
--   observed:running:<limit>     token → when its run would have begun by an observed maximum
--   observed:places:<limit>      if such a run has ended: token → when its place comes free
--   stats:counters      name → total since the beginning
--   stats:named         limit that is counted by name → when it was last used
--   stats:history       a stream of copies of the counters
--   stats:copied        the counters as they were in the last copy
--   stats:trimmed       how far the walk that removes what has no name has come
--   stats:ended         records of ended runs, until tally counts them
--   stats:times         histograms of how long runs waited and held
--   stats:times:<start> the same for one interval
--
-- Waiting room
--   ticket              the last number that was given out in a ticket
--   groups              group → ticket of its first waiter
--   group:<group>       waiter → its ticket
--   waiter:<waiter>     its record: a line of facts, and its message
--   names               all waiters, sorted by name, to find them by their first characters
--   retried:<task>      the task's waiters whose names differ from its id
--   newest              group and task → the waiter that a newer one would replace
--   expiring            waiter → when its message expires
--   reserved:<group>    reserved token → its expiry
--   reservations        the same for all groups
--   begun:<run>         for a run that parked a message: which run began on it, or 'ended'
--   collecting          the group that room is collected for, the token, and until when
--   collecting:cursor   the ticket after which to look for the next group
--   outbox              number of a message → when somebody may send it
--   outbox:<number>     the message
--   outbox:number       the last number
--   call:<id>           tells a caller outside of tasks that it has room
--
-- Index (see index.lua), all by the ticket of the first waiter
--   open                classes
--   ready:<class>       own limits
--   bucket:<class><own limit>   groups
--   shut:<limit>        classes
--   moments             limit that is shut until a moment → that
--   blocked:shared      shared limit that is shut → when it was last checked
--   blocked:own         own limit that is shut → when it was last checked
--   freed               shut limits that got room
--   recheck             since when all blocked limits need a check

local prefix = KEYS[1]

-- Return a key: key('leases'), key('token', token). It begins with the prefix, the script's only
-- declared key, so that a hash tag in the prefix keeps a call in one cluster slot.
local function key(name, of)
  if of then
    return prefix .. ':' .. name .. ':' .. of
  end
  return prefix .. ':' .. name
end
