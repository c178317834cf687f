-- Placed before every other script when it is loaded.
--
-- KEYS[1]  outbox stream of the bucket
-- KEYS[2]  sequence counter of the bucket
-- ARGV[1]  id of the event this call records (hex)
-- ARGV[2]  circumstances of the call (JSON, stored as it is)
-- ARGV[3]  number of events at which the outbox is full
-- ARGV[4]  milliseconds added to the store's clock, or '=' and the time to take for it; 0 but in tests
--
-- While a cluster moves a slot key by key, a key that is not there is taken for one that has moved, and whoever names it
-- gets an error. So a script reads all that is not among its KEYS before it writes anything, and does not let a key vanish that it
-- writes to later.

local outbox, sequence_counter = KEYS[1], KEYS[2]
local event_id, circumstances = ARGV[1], ARGV[2]
local outbox_max = tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = tonumber(string.match(ARGV[4], '^=(%d+)$'))
  or time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4])

-- Integers are written in full; tostring() would round above 14 digits.
local function text(number)
  return string.format('%.0f', number)
end

local function outbox_is_full()
  return redis.call('XLEN', outbox) >= outbox_max
end

-- Taking away is not held up by a backend that is away, up to twice the bound.
local function outbox_is_overfull()
  return redis.call('XLEN', outbox) >= 2 * outbox_max
end

-- Appends an event of this call and returns its gapless sequence number. A call that records several gives each but
-- one an id of its own.
local function record(type, outcome, reason, subject, session, generation, id, evidence)
  local sequence = redis.call('INCR', sequence_counter)
  redis.call('XADD', outbox, '*', 'id', id or event_id, 'seq', sequence, 'at', text(now_ms), 'type', type,
    'outcome', outcome, 'reason', reason, 'subject', subject, 'session', session,
    'generation', generation, 'circumstances', circumstances, 'evidence', evidence or '')
  return sequence
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

-- An id for an event about something that this call concerns beside its own; the same on every repetition of the call.
local function id_about(name)
  return string.sub(redis.sha1hex(event_id .. name), 1, #event_id)
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
local function limiter_step(stored, per_minute)
  local interval = 60000 / per_minute
  local arrival = math.max(tonumber(stored) or 0, now_ms)
  local wait = arrival - now_ms - interval * (per_minute - 1)
  if wait > 0 then
    return arrival, math.ceil(wait)
  end
  return arrival + interval, 0
end

