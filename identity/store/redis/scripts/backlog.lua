-- How much waits in a bucket.
--
-- KEYS[3]  relays (hash; see relay_read)
-- KEYS[4]  dead letters (stream)
-- ARGV[5]  names of all sinks, by spaces
--
-- Returns {events, dead letters, sequence number, now in ms, id and age of the oldest entry, and of each sink in its order: its cursor
-- ('' for none), id and age of the oldest entry after that}. An id is '' for none. An age (ms) is below 0 where the store's clock has gone back.

local answer = {redis.call('XLEN', outbox), redis.call('XLEN', KEYS[4]),
  tonumber(redis.call('HGET', ledger, 'sequence') or '0'), text(now_ms)}

-- Not from its id: ids only grow, and stay ahead with a clock that was.
local function tell_oldest(entry)
  answer[#answer + 1] = entry and entry[1] or ''
  answer[#answer + 1] = entry and now_ms - tonumber(entry[2][6]) or 0
end

local oldest = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)
tell_oldest(oldest[1])
for name in string.gmatch(ARGV[5], '%S+') do
  local cursor = redis.call('HGET', KEYS[3], name .. ' cursor') or ''
  local entry = string.match(cursor, '(%S+)$')
  local unread = oldest
  if entry and oldest[1] then
    unread = redis.call('XRANGE', outbox, '(' .. entry, '+', 'COUNT', 1)
  end
  answer[#answer + 1] = cursor
  tell_oldest(unread[1])
end
return answer
