-- configure: put a configuration in force, unless another change came first, and record it.
--
-- KEYS   1 the prefix
-- ARGV   1 the version that the caller saw ('0' if there was none)
--        2 SHA-1 of the stored JSON that the caller saw ('' if there was none)
--        3 the JSON to store; '' keeps the stored one: the flat copy follows it or says
--          what is wrong with it
--        4 a unique name for this change
--        5 its source, and 6 its operator ('' if unknown), for the history
--        7.. the flat copy's fields and values in turn; 'json' is what is in force; 'rates',
--          'adaptive', 'observed', 'bounds' and 'shares' are JSON objects, stored in separate hashes
-- Reply  the new version, or 0 if another change came first; then nothing is done
-- Cost   one write per field of the flat copy, and two commands more for each limit that is or was
--        observed; in the history a new entry, and a read and a removal for each entry that has no
--        room any more
-- Again  a second copy finds its name in the history and gives the first copy's answer; if the
--        history no longer has it, 0.
-- OOM    done: it may let waiters go

-- The history holds the last hundred changes and the one before, for comparison, but at most this
-- many bytes of JSON: a configuration may have a megabyte.
local ENTRIES_MOST, BYTES_MOST = 101, 8 * 1024 * 1024

-- Fields that are stored as separate hashes.
local HASHES = {rates = key('config:rates'), adaptive = key('config:adaptive'),
  observed = key('config:observed'), bounds = key('config:bounds'), shares = key('config:shares')}

-- After a loss of data nobody is admitted until two beats have reported what living runs hold.
local SETTLE_SECONDS = 3

-- Return the SHA-1 of the stored JSON; '' if there is none, or it is not a string.
local function digest()
  local text = redis.pcall('GET', key('config'))
  return type(text) == 'string' and redis.sha1hex(text) or ''
end

-- Return the fields of a history entry, with its version; nil if there is no entry.
local function fields_of(entry)
  if not entry then
    return nil
  end
  local fields = {version = tonumber(string.match(entry[1], '^%d+'))}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  return fields
end

-- Give each entry a name that it keeps until it is removed; if it is set again it gets a new one.
local function name_entries(texts, hash)
  for limit, text in pairs(texts) do
    local before = redis.call('HGET', hash, limit)
    texts[limit] = text .. ' ' .. (before and string.match(before, '%S+$') or exact(time))
  end
end

local seen = tonumber(ARGV[1])
if tonumber(redis.call('GET', key('config:version')) or 0) ~= seen or digest() ~= ARGV[2] then
  local next_id = string.format('%.0f-0', seen + 1)
  local first_copy = fields_of(redis.call('XRANGE', key('config:history'), next_id, next_id)[1])
  return first_copy and first_copy.id == ARGV[4] and first_copy.version or 0
end

never_refuse()
local last = fields_of(redis.call('XREVRANGE', key('config:history'), '+', '-', 'COUNT', 1)[1])

if ARGV[3] ~= '' then
  redis.call('SET', key('config'), ARGV[3])
end
local function bounds()
  return table.concat(redis.call('HGETALL', key('config:bounds')), ' ')
end

-- Without a flat copy nobody was entered in a limit's line.
local bounds_before = redis.call('EXISTS', key('config:flat')) == 1 and bounds() or ''
local observed = redis.call('HGETALL', key('config:observed'))
redis.call('DEL', key('config:flat'))
for i = 7, #ARGV, 2 do
  redis.call('HSET', key('config:flat'), ARGV[i], ARGV[i + 1])
end
for name, hash in pairs(HASHES) do
  local texts = cjson.decode(redis.call('HGET', key('config:flat'), name) or '{}')
  if name == 'adaptive' then
    name_entries(texts, hash)
  end
  redis.call('DEL', hash)
  for limit, text in pairs(texts) do
    redis.call('HSET', hash, limit, text)
  end
  redis.call('HDEL', key('config:flat'), name)
end
-- If something is no longer observed, or with another maximum or rate, its counts start again.
for i = 1, #observed, 2 do
  if redis.call('HGET', key('config:observed'), observed[i]) ~= observed[i + 1] then
    redis.call('DEL', key('observed', observed[i]))
  end
end
if bounds() ~= bounds_before then
  -- Who waits already counts as well (see sweep).
  redis.call('SET', key('waiting:walk'), '')
end
-- Without an epoch, the data is new or all of it was lost.
redis.call('SET', key('epoch'), exact(time), 'NX')
redis.call('HSET', key('config:flat'), 'source', digest(),
  'opens', redis.call('GET', key('epoch')) + SETTLE_SECONDS)

-- No version is used twice, even if an operator deleted the key that counts them.
local version = math.max(seen, last and last.version or 0) + 1
redis.call('SET', key('config:version'), string.format('%.0f', version))

-- 'sum' is the bytes of all JSON up to an entry, so a difference says how much is stored.
local json = redis.call('HGET', key('config:flat'), 'json')
local sum = (last and tonumber(last.sum) or 0) + #json
redis.call('XADD', key('config:history'), string.format('%.0f-0', version),
  'at', exact(time), 'id', ARGV[4], 'source', ARGV[5], 'operator', ARGV[6],
  'problem', redis.call('HGET', key('config:flat'), 'problem') or '', 'sum', string.format('%.0f', sum),
  'json', json)
while true do
  local entry = redis.call('XRANGE', key('config:history'), '-', '+', 'COUNT', 1)[1]
  local oldest = fields_of(entry)
  local bytes = sum - tonumber(oldest.sum) + #oldest.json
  if redis.call('XLEN', key('config:history')) <= ENTRIES_MOST and bytes <= BYTES_MOST then
    break
  end
  redis.call('XDEL', key('config:history'), entry[1])
end
return version
