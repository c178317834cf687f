-- Lets other relays have a bucket at once.
--
-- KEYS[3]  relays (hash; see relay_read)
-- ARGV[5]  sink   ARGV[6] relay
--
-- Returns 1, or 0 when another relay has it.

local leased = string.match(redis.call('HGET', KEYS[3], ARGV[5] .. ' lease') or '', '^(%S+)')
if leased ~= ARGV[6] then
  return 0
end
redis.call('HDEL', KEYS[3], ARGV[5] .. ' lease')
return 1
