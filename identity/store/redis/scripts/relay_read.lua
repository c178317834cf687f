-- Leases a bucket to a relay for one sink, and reads what it has for that. Where there is nothing, what every sink has is taken out
-- of the outbox all the same: a sink that is named no longer may have been the last to keep it.
--
-- KEYS[3]  relays (hash): `<sink> cursor`, the sequence number, link and entry up to which a sink has everything; `<sink> lease`, the
--          relay that reads for it, and until when (ms)
-- ARGV[5]  sink   ARGV[6] relay   ARGV[7] how long the lease lasts, ms   ARGV[8] how many events at most
-- ARGV[9]  the relays that live, by spaces; what another one has leased is free
-- ARGV[10] names of all sinks, by spaces
--
-- Returns {cursor or '', entries}, or {} when another relay has the bucket or there is nothing.

local leased, ends = string.match(redis.call('HGET', KEYS[3], ARGV[5] .. ' lease') or '', '^(%S+) (%d+)$')
local lives = leased and string.find(' ' .. ARGV[9] .. ' ', ' ' .. leased .. ' ', 1, true)
if lives and leased ~= ARGV[6] and now_ms < tonumber(ends) then
  return {}
end
if redis.call('HLEN', ledger) > 1 then
  local stored = redis.call('HGETALL', ledger)
  for at = 1, #stored, 2 do
    local cause = string.match(stored[at], '^fold (.*)$')
    local since, count = string.match(stored[at + 1], '^(%d+) (%d+)$')
    if cause and now_ms >= since + fold_window_ms then
      tell_fold(cause, since, tonumber(count))
      redis.call('HDEL', ledger, stored[at])
    elseif stored[at] == 'dropped' then
      tell_dropped(stored[at + 1])
    end
  end
end
local cursor = redis.call('HGET', KEYS[3], ARGV[5] .. ' cursor') or ''
local after = string.match(cursor, '(%S+)$')
local entries = redis.call('XRANGE', outbox, after and '(' .. after or '-', '+', 'COUNT', ARGV[8])
if #entries == 0 then
  if redis.call('XLEN', outbox) > 0 then
    trim(KEYS[3], ARGV[10])
  end
  return {}
end
redis.call('HSET', KEYS[3], ARGV[5] .. ' lease', ARGV[6] .. ' ' .. text(now_ms + ARGV[7]))
return {cursor, entries}
