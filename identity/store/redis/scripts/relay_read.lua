-- Leases a bucket to a relay for one sink, and reads what it has for that. Where there is nothing, what every sink has is taken out
-- of the outbox all the same: a sink that is named no longer may have been the last to keep it.
--
-- KEYS[3]  relays (hash): `<sink> cursor`, the sequence number, link and entry up to which a sink has everything; `<sink> lease`, the
--          relay that reads for it, and until when (ms); `left`, the number of the newest event that has left the outbox;
--          `<sink> told`, up to which number a sink was told what had left without it
-- ARGV[5]  sink   ARGV[6] relay   ARGV[7] how many events at most
-- ARGV[8]  the relays that live, by spaces; what another one has leased is free
-- ARGV[9]  names of all sinks, by spaces
--
-- Returns {cursor or '', entries}, or {} when another relay has the bucket or there is nothing.

local reader = reader_of(KEYS[3], ARGV[5])
if reader and reader ~= ARGV[6] and string.find(' ' .. ARGV[8] .. ' ', ' ' .. reader .. ' ', 1, true) then
  return {}
end
if redis.call('HLEN', ledger) > 1 then
  local stored = redis.call('HGETALL', ledger)
  for at = 1, #stored, 2 do
    local cause = string.match(stored[at], '^fold (.*)$')
    local since, count = string.match(stored[at + 1], '^(%d+) (%d+)$')
    if cause and is_fold_over(since) then
      tell_fold(cause, since, tonumber(count))
      redis.call('HDEL', ledger, stored[at])
    elseif stored[at] == 'dropped' then
      tell_dropped(stored[at + 1])
    end
  end
end
local cursor = redis.call('HGET', KEYS[3], ARGV[5] .. ' cursor') or ''
local sequence, after = string.match(cursor, '^(%d+) %S+ (%S+)$')
-- A sink that was not among those waited for, and is again. One that has no cursor is new, and begins here.
local left = tonumber(redis.call('HGET', KEYS[3], 'left') or '0')
local told = tonumber(redis.call('HGET', KEYS[3], ARGV[5] .. ' told') or '0')
if sequence and left > math.max(tonumber(sequence), told) then
  local bucket = tonumber(string.match(outbox, '{b(%x+)}'), 16)
  append('audit.sink_resumed', 'success', '', '', '', '', string.sub(redis.sha1hex(outbox .. ARGV[5] .. cursor .. left), 1, 20), '',
    string.format('{"client":"","method":"","detail":"sink %s, bucket %d: %.0f-%.0f"}', ARGV[5], bucket, sequence + 1, left))
  redis.call('HSET', KEYS[3], ARGV[5] .. ' told', text(left))
end
local entries = redis.call('XRANGE', outbox, after and '(' .. after or '-', '+', 'COUNT', ARGV[7])
if #entries == 0 then
  if redis.call('XLEN', outbox) > 0 then
    trim(KEYS[3], ARGV[9])
  end
  return {}
end
redis.call('HSET', KEYS[3], ARGV[5] .. ' lease', ARGV[6] .. ' ' .. text(now_ms + lease_ms))
return {cursor, entries}
