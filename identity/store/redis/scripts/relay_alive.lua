-- Says that a relay lives and which sinks it has, and who else does.
--
-- KEYS[3]  relays that live (sorted set: `<relay> <sink> <sink>…`; until when, ms)
-- ARGV[5]  relay; '' to ask only   ARGV[6] for how long it counts as alive, ms; 0 to end
-- ARGV[7]  names of its sinks, by spaces
--
-- Returns the members, in order.

redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now_ms))
if ARGV[5] ~= '' then
  for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if string.match(member, '^%S+') == ARGV[5] then
      redis.call('ZREM', KEYS[3], member)
    end
  end
  if ARGV[6] ~= '0' then
    redis.call('ZADD', KEYS[3], text(now_ms + ARGV[6]), ARGV[5] .. ' ' .. ARGV[7])
  end
end
local alive = redis.call('ZRANGE', KEYS[3], 0, -1)
table.sort(alive)
return alive
