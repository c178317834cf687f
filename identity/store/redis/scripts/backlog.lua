-- How much waits in a bucket.
--
-- KEYS[3]  relays (hash; see relay_read)
-- KEYS[4]  dead letters (stream)
-- ARGV[5]  names of all sinks, by spaces
--
-- Returns {events, id of the oldest entry or '', dead letters, sequence number, now in ms, cursors, ids and times...}: of each sink
-- in its order its cursor, '' for none, the id of the oldest entry after that, and when that was recorded, '' for none.

local oldest = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)
local answer = {redis.call('XLEN', outbox), oldest[1] and oldest[1][1] or '', redis.call('XLEN', KEYS[4]),
  tonumber(redis.call('HGET', ledger, 'sequence') or '0'), text(now_ms)}
for name in string.gmatch(ARGV[5], '%S+') do
  local cursor = redis.call('HGET', KEYS[3], name .. ' cursor') or ''
  local entry = string.match(cursor, '(%S+)$')
  local unread = oldest
  if entry and oldest[1] then
    unread = redis.call('XRANGE', outbox, '(' .. entry, '+', 'COUNT', 1)
  end
  answer[#answer + 1] = cursor
  answer[#answer + 1] = unread[1] and unread[1][1] or ''
  answer[#answer + 1] = unread[1] and unread[1][2][6] or ''
end
return answer
