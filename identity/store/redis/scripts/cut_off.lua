-- Ends what a subject or client has got up to now, in this bucket: what started before has a smaller sequence
-- number than this event, what starts later a greater one.
--
-- KEYS[3]  cut-off of the subject or client (hash)
-- KEYS[4]  feed of revocations
-- ARGV[5]  event type, '' to record none (one event stands for all the buckets of a client)
-- ARGV[6]  subject, or '' for a client
-- ARGV[7]  cause
-- ARGV[8]  milliseconds after which nothing that started before can be alive
-- ARGV[9]  '1' or '0' to disable or enable a client; '' to leave that
-- ARGV[10] 'sessions' to end these and their access tokens, 'access_tokens' to end those and keep the sessions
-- ARGV[11] name of the subject or client, for the feed
-- ARGV[12] roles of the subject's sessions from now on (JSON array); '' to leave them
--
-- Returns the sequence number of the cut-off, or 'OUTBOX_FULL'.

if outbox_is_overfull() then
  return 'OUTBOX_FULL'
end
local sequence
if ARGV[5] ~= '' then
  sequence = record(ARGV[5], 'success', ARGV[7], ARGV[6], '', '')
else
  sequence = tonumber(redis.call('HGET', ledger, 'sequence') or '0')
end
if ARGV[9] ~= '0' then
  redis.call('HSET', KEYS[3], ARGV[10] == 'sessions' and 'sequence' or 'access_sequence', sequence)
  if ARGV[10] == 'sessions' then
    -- For those who ask why their session is over.
    redis.call('HSET', KEYS[3], 'ended', text(now_ms), 'cause', ARGV[7], 'by', cjson.decode(circumstances).client)
  end
  if sequence > 0 then
    announce(KEYS[4], ARGV[6] ~= '' and 'subject' or 'client', ARGV[11], sequence)
  end
end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[3], 'disabled', ARGV[9])
end
if ARGV[12] ~= '' then
  redis.call('HSET', KEYS[3], 'roles', ARGV[12], 'roles_sequence', sequence)
end
redis.call('PEXPIRE', KEYS[3], ARGV[8])
return sequence
