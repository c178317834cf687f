-- Notes that a sink has everything up to an entry, and takes out of the outbox what every sink has.
--
-- KEYS[3]  relays (hash; see relay_read)
-- KEYS[4]  dead letters (stream)
-- ARGV[5]  sink   ARGV[6] relay
-- ARGV[7]  the new cursor: sequence number, link and entry, by spaces
-- ARGV[8]  names of all sinks, by spaces
-- ARGV[9]  how many dead letters there may be
-- ARGV[10] of each dead letter, in a row: event id (hex) and circumstances (JSON) of the event that tells of it, both '' for none; the
--          event as a line; what the sink has said
--
-- Returns 'ADVANCED', 'LOST' when another relay has the bucket, or 'DEAD_LETTERS_FULL'.

local sink, first_dead, of_each = ARGV[5], 10, 4
local leased = string.match(redis.call('HGET', KEYS[3], sink .. ' lease') or '', '^(%S+)')
if leased ~= ARGV[6] then
  return 'LOST'
end
local dead = (#ARGV - first_dead + 1) / of_each
if dead > 0 and redis.call('XLEN', KEYS[4]) + dead > tonumber(ARGV[9]) then
  return 'DEAD_LETTERS_FULL'
end
for at = first_dead, #ARGV, of_each do
  redis.call('XADD', KEYS[4], '*', 'line', ARGV[at + 2], 'problem', ARGV[at + 3])
  if ARGV[at] ~= '' then
    append('audit.dead_lettered', 'refused', '', '', '', '', ARGV[at], '', ARGV[at + 1])
  end
end
redis.call('HSET', KEYS[3], sink .. ' cursor', ARGV[7])

trim(KEYS[3], ARGV[8])
return 'ADVANCED'
