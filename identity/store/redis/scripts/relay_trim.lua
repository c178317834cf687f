-- Placed before the scripts of relays that take out of the outbox what every sink has.

local lease_ms = 60000

-- Which relay reads for a sink; nil where no lease lasts.
local function reader_of(relays, sink)
  local relay, ends = string.match(redis.call('HGET', relays, sink .. ' lease') or '', '^(%S+) (%d+)$')
  if not relay or now_ms >= tonumber(ends) then
    return nil
  end
  -- Given before the store's clock went back: from now on it lasts as long as a new one, and not until the clock is there again.
  if tonumber(ends) > now_ms + lease_ms then
    redis.call('HSET', relays, sink .. ' lease', relay .. ' ' .. text(now_ms + lease_ms))
  end
  return relay
end

local function parts(entry)
  local ms, count = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(count)
end

-- Takes out of the outbox what all of these sinks (names, by spaces) have; `relays` as in relay_read. Nothing leaves before a sink
-- that somebody is reading for: whoever has just begun with it is not yet known to all.
local function trim(relays, sinks)
  local first_ms, first_count, first_sequence
  local stored = redis.call('HGETALL', relays)
  for at = 1, #stored, 2 do
    local reading = string.match(stored[at], '^(%S+) lease$')
    if reading and reader_of(relays, reading) then
      sinks = sinks .. ' ' .. reading
    end
  end
  for name in string.gmatch(sinks, '%S+') do
    local sequence, entry = string.match(redis.call('HGET', relays, name .. ' cursor') or '', '^(%d+) %S+ (%S+)$')
    if not entry then
      return
    end
    local ms, count = parts(entry)
    if not first_ms or ms < first_ms or (ms == first_ms and count < first_count) then
      first_ms, first_count, first_sequence = ms, count, sequence
    end
  end
  if first_ms and redis.call('XTRIM', outbox, 'MINID', string.format('%.0f-%.0f', first_ms, first_count + 1)) > 0 then
    redis.call('HSET', relays, 'left', first_sequence)
  end
end

