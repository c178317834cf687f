-- Records uses of tokens that a client reports, and losses of such, those of one bucket, each once.
--
-- KEYS[3]  mark: the highest number recorded of the spool that the report is from
-- ARGV[5]  how long the mark is kept, in milliseconds
-- then of each use, by rising number:  number   event id   type   outcome   reason   subject   family id   circumstances
--
-- Numbers of a spool come in their order, from the oldest that is not known to be recorded, so one mark tells
-- of all of them whether they are.
--
-- Returns how many were recorded, how many were already, and how many found no room.

local mark = KEYS[3]
local first, fields_a_use = 6, 8
-- The rest of the outbox is for what has no disk of its own to wait on.
local room_for_uses = 0.75

local limit = math.max(1, math.floor(outbox_max * room_for_uses))
local waiting = redis.call('XLEN', outbox)
local recorded_up_to = tonumber(redis.call('GET', mark) or 0)
local recorded, already, at = 0, 0, first
while at <= #ARGV do
  local number = tonumber(ARGV[at])
  if number <= recorded_up_to then
    already = already + 1
  else
    if waiting >= limit then
      local made = refusals_make_room and make_room() or 0
      if made == 0 then
        break
      end
      waiting = waiting - made
    end
    append(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], '', ARGV[at + 1], '', ARGV[at + 7])
    waiting = waiting + 1
    recorded_up_to = number
    recorded = recorded + 1
  end
  at = at + fields_a_use
end
if recorded_up_to > 0 then
  redis.call('SET', mark, text(recorded_up_to), 'PX', ARGV[5])
end
return {recorded, already, (#ARGV + 1 - at) / fields_a_use}
