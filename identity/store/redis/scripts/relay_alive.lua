-- Says that a relay lives, and who else does.
--
-- KEYS[3]  relays that live (sorted set: until when, ms)
-- ARGV[5]  relay   ARGV[6] for how long it counts as alive, ms; 0 to end
--
-- Returns their names, in order.

redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now_ms))
if ARGV[6] == '0' then
  redis.call('ZREM', KEYS[3], ARGV[5])
else
  redis.call('ZADD', KEYS[3], text(now_ms + ARGV[6]), ARGV[5])
end
local alive = redis.call('ZRANGE', KEYS[3], 0, -1)
table.sort(alive)
return alive
