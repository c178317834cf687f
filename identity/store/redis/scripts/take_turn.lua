-- Whose turn it is to sign how far the sinks have got.
--
-- KEYS[3]  who has the turn of this period (string)
-- KEYS[4]  what the one before has left
-- ARGV[5]  who asks   ARGV[6]  period, ms
--
-- Returns {1, or 0 where somebody has the turn; what the last that ended well has left, '' for nothing; now in ms}.

local last = redis.call('GET', KEYS[4]) or ''
-- A key expires at a moment. Where the clock was set back since, that is further away than any turn lasts.
local left = redis.call('PTTL', KEYS[3])
if left >= 0 and left <= tonumber(ARGV[6]) then
  return {0, last, text(now_ms)}
end
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
return {1, last, text(now_ms)}
