-- Says that a relay lives and which sinks it has, and who else does.
--
-- KEYS[3]  relays that live (sorted set: `<relay> <sink> <sink>…`; until when, ms)
-- ARGV[5]  relay; '' to ask only   ARGV[6] 'LIVES', or 'ENDS'
-- ARGV[7]  names of its sinks, by spaces
--
-- Returns the members, in order.

local alive_ms = 10000
local own = ARGV[5] .. ' ' .. ARGV[7]
local lives = ARGV[5] ~= '' and ARGV[6] == 'LIVES'
if lives then
  redis.call('ZADD', KEYS[3], text(now_ms + alive_ms), own)
end
local alive, stored = {}, redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for at = 1, #stored, 2 do
  local member, ends = stored[at], tonumber(stored[at + 1])
  local is_own = string.match(member, '^%S+') == ARGV[5]
  if ends <= now_ms or (is_own and not (lives and member == own)) then
    redis.call('ZREM', KEYS[3], member)
  else
    -- Said before the store's clock went back; its relay may have died since, and would live on until the clock is there again.
    if ends > now_ms + alive_ms then
      redis.call('ZADD', KEYS[3], text(now_ms + alive_ms), member)
    end
    alive[#alive + 1] = member
  end
end
table.sort(alive)
return alive
