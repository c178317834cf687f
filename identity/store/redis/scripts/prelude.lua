-- Placed before every other script when it is loaded.
--
-- KEYS[1]  outbox stream of the bucket
-- KEYS[2]  ledger of the bucket (hash): `sequence`, the number of its newest event; `fold <cause>`, when counting began and how
--          many there were; `dropped`, numbers of refusals that made room; `looked`, up to which entry room was sought
-- ARGV[1]  id of the event this call records (hex)
-- ARGV[2]  circumstances of the call (JSON, stored as it is)
-- ARGV[3]  number of events at which the outbox is full; '~' after it where the oldest refusals make room then
-- ARGV[4]  milliseconds added to the store's clock, or '=' and the time to take for it; 0 but in tests
--
-- While a cluster moves a slot key by key, a key that is not there is taken for one that has moved, and whoever names it
-- gets an error. So a script reads all that is not among its KEYS before it writes anything, and does not let a key vanish that it
-- writes to later.

local outbox, ledger = KEYS[1], KEYS[2]
local event_id, circumstances = ARGV[1], ARGV[2]
local outbox_max = tonumber(string.match(ARGV[3], '^%d+'))
local refusals_make_room = string.sub(ARGV[3], -1) == '~'
local time = redis.call('TIME')
local now_ms = tonumber(string.match(ARGV[4], '^=(%d+)$'))
  or time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4])

-- Integers are written in full; tostring() would round above 14 digits.
local function text(number)
  return string.format('%.0f', number)
end

-- An id for an event about something that this call concerns beside its own; the same on every repetition of the call.
local function id_about(name)
  return string.sub(redis.sha1hex(event_id .. name), 1, #event_id)
end

local function append(type, outcome, reason, subject, session, generation, id, evidence, told, expires)
  local sequence = redis.call('HINCRBY', ledger, 'sequence', 1)
  redis.call('XADD', outbox, '*', 'id', id, 'seq', sequence, 'at', text(now_ms), 'type', type,
    'outcome', outcome, 'reason', reason, 'subject', subject, 'session', session,
    'generation', generation, 'circumstances', told, 'evidence', evidence or '', 'expires', expires or '')
  return sequence
end

-- Refusals after which all is as before. Of those with the same cause the first few of a window are recorded one by one;
-- the others are counted, and told in one event when the window is over: the next of them, or a relay that reads, tells.
local changes_nothing = {['refresh.refused'] = true, ['revocation.refused'] = true, ['request.refused'] = true,
  ['client.authentication_failed'] = true}
local fold_beyond, fold_window_ms, fold_causes_max = 20, 10000, 64

-- One that began ahead of the clock is over, too: the clock has gone back, and nobody knows when it began.
local function is_fold_over(since)
  since = tonumber(since)
  return now_ms >= since + fold_window_ms or now_ms < since
end

local function tell_fold(cause, since, count)
  if count > fold_beyond then
    local type, reason, client = string.match(cause, '^(%S+) (%S*) (.*)$')
    append(type, 'refused', reason, '', '', '', string.sub(redis.sha1hex(outbox .. cause .. since), 1, 20), '',
      string.format('{"client":"%s","method":"","count":%d,"detail":"beyond the first %d of %d s"}', client,
        count - fold_beyond, fold_beyond, fold_window_ms / 1000))
  end
end

local function is_folded(type, reason)
  local cause = type .. ' ' .. reason .. ' ' .. (string.match(circumstances, '^{"client":"([^"\\]*)"') or '')
  local stored = redis.call('HGET', ledger, 'fold ' .. cause)
  if not stored and redis.call('HLEN', ledger) >= fold_causes_max then
    cause = type .. ' OTHER '
    stored = redis.call('HGET', ledger, 'fold ' .. cause)
  end
  local since, count = string.match(stored or '', '^(%d+) (%d+)$')
  if not since or is_fold_over(since) then
    if since then
      tell_fold(cause, since, tonumber(count))
    end
    since, count = text(now_ms), 0
  end
  redis.call('HSET', ledger, 'fold ' .. cause, since .. ' ' .. text(count + 1))
  return count + 1 > fold_beyond
end

-- Tells of the refusals that made room.
local function tell_dropped(dropped)
  local bucket = tonumber(string.match(outbox, '{b(%x+)}'), 16)
  append('audit.refusals_dropped', 'success', '', '', '', '', string.sub(redis.sha1hex(outbox .. dropped), 1, 20), '',
    string.format('{"client":"","method":"","detail":"bucket %d: %s"}', bucket, dropped))
  redis.call('HDEL', ledger, 'dropped')
end

-- Takes the oldest refusals away that were not looked at yet, a few at a time; gives how many.
local room_looked_at, room_wanted, room_told_at = 100, 10, 1000

local function make_room()
  local looked = redis.call('HGET', ledger, 'looked')
  local entries = redis.call('XRANGE', outbox, looked and '(' .. looked or '-', '+', 'COUNT', room_looked_at)
  if #entries == 0 then
    redis.call('HDEL', ledger, 'looked')
    return 0
  end
  local numbers = {redis.call('HGET', ledger, 'dropped') or nil}
  local made, last = 0, nil
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    last = entry[1]
    if changes_nothing[fields[8]] and made < room_wanted then
      redis.call('XDEL', outbox, entry[1])
      numbers[#numbers + 1] = fields[4]
      made = made + 1
    end
    if made == room_wanted then
      break
    end
  end
  redis.call('HSET', ledger, 'looked', last)
  if made > 0 then
    local dropped = table.concat(numbers, ', ')
    redis.call('HSET', ledger, 'dropped', dropped)
    if #dropped > room_told_at then
      tell_dropped(dropped)
    end
  end
  return made
end

local function outbox_is_full()
  if redis.call('XLEN', outbox) < outbox_max then
    return false
  end
  return not (refusals_make_room and make_room() > 0)
end

-- Taking away is not held up by a backend that is away, up to twice the bound.
local function outbox_is_overfull()
  return redis.call('XLEN', outbox) >= 2 * outbox_max
end

-- Records an event of this call and returns its gapless sequence number, 0 where it is only counted. A call that records
-- several gives each but one an id of its own. `expires`: when the session is over if it is not used again.
local function record(type, outcome, reason, subject, session, generation, id, evidence, expires)
  if changes_nothing[type] and is_folded(type, reason) then
    return 0
  end
  return append(type, outcome, reason, subject, session, generation, id or event_id, evidence, circumstances, expires)
end

-- No access token lives longer than 15 minutes; two more allow for skew between servers and verifiers.
local access_tokens_out_ms = 17 * 60000
-- How many forgotten revocations a new one takes away with it, so that the feed shrinks as fast as it may grow.
local forgotten_at_once = 4

-- Appends a revocation to the feed of this bucket, where servers read it for their verifiers. The first part of
-- an entry's id is the sequence number up to which tokens are revoked. Entries leave once the tokens they concern
-- have expired.
local function announce(feed, kind, name, sequence)
  for _, entry in ipairs(redis.call('XRANGE', feed, '-', '+', 'COUNT', forgotten_at_once)) do
    if tonumber(entry[2][6]) + access_tokens_out_ms < now_ms then
      redis.call('XDEL', feed, entry[1])
    end
  end
  redis.call('XADD', feed, string.format('%.0f-*', sequence), 'kind', kind, 'name', name, 'at', text(now_ms))
  redis.call('PEXPIRE', feed, access_tokens_out_ms)
end

-- The verdict on a revocation that names a family that is not stored, or is not of the client it has to be of ('' for
-- any), and records that; nil where nothing stands against it.
local function refusal_to_revoke(owner, subject, session, only_client)
  if not owner then
    record('revocation.of_unknown', 'success', '', '', session, '')
    return 'UNKNOWN'
  end
  if only_client ~= '' and only_client ~= owner then
    record('revocation.refused', 'refused', 'REVOCATION_NOT_ALLOWED', subject, session, '')
    return 'NOT_ALLOWED'
  end
  return nil
end

-- Whether a cut-off of a subject or client (hash with the field `sequence`) lies at or after `started`.
local function is_cut_off(key, started)
  local cut_off = redis.call('HGET', key, 'sequence')
  return cut_off and tonumber(started) <= tonumber(cut_off)
end

-- One step of a limiter (GCRA) that allows `per_minute` calls at once and then one every 60 s / per_minute.
-- Returns the theoretical arrival time to store, and how many milliseconds to wait (0: allowed).
local limiter_ahead_ms = 120000

local function limiter_step(stored, per_minute)
  local interval = 60000 / per_minute
  local arrival = math.max(tonumber(stored) or 0, now_ms)
  -- None is ahead by more than a minute. What is was spent before the store's clock went back, and would have everybody wait for
  -- as long as the step was; how much of it is left nobody knows.
  if arrival > now_ms + limiter_ahead_ms then
    arrival = now_ms
  end
  local wait = arrival - now_ms - interval * (per_minute - 1)
  if wait > 0 then
    return arrival, math.ceil(wait)
  end
  return arrival + interval, 0
end

