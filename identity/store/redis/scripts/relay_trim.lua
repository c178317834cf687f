-- Placed before the scripts of relays that take out of the outbox what every sink has.

local function parts(entry)
  local ms, count = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(count)
end

-- Takes out of the outbox what all of these sinks (names, by spaces) have; `relays` as in relay_read. Nothing leaves before a sink
-- that somebody is reading for: whoever has just begun with it is not yet known to all.
local function trim(relays, sinks)
  local first_ms, first_count
  local stored = redis.call('HGETALL', relays)
  for at = 1, #stored, 2 do
    local reading = string.match(stored[at], '^(%S+) lease$')
    if reading and now_ms < tonumber(string.match(stored[at + 1], '(%d+)$')) then
      sinks = sinks .. ' ' .. reading
    end
  end
  for name in string.gmatch(sinks, '%S+') do
    local entry = string.match(redis.call('HGET', relays, name .. ' cursor') or '', '(%S+)$')
    if not entry then
      return
    end
    local ms, count = parts(entry)
    if not first_ms or ms < first_ms or (ms == first_ms and count < first_count) then
      first_ms, first_count = ms, count
    end
  end
  if first_ms then
    redis.call('XTRIM', outbox, 'MINID', string.format('%.0f-%.0f', first_ms, first_count + 1))
  end
end

