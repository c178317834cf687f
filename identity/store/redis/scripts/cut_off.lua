-- Ends everything of a subject or client that has started up to now, in this bucket: what started before has a
-- smaller sequence number than this event, what starts later a greater one.
--
-- KEYS[3]  cut-off of the subject or client (hash)
-- ARGV[5]  event type, '' to record none (one event stands for all the buckets of a client)
-- ARGV[6]  subject, or '' for a client
-- ARGV[7]  cause
-- ARGV[8]  milliseconds after which nothing that started before can be alive
-- ARGV[9]  '1' or '0' to disable or enable a client; '' to leave that
--
-- Returns the sequence number of the cut-off, or 'OUTBOX_FULL'.

if outbox_is_overfull() then
  return 'OUTBOX_FULL'
end
local sequence
if ARGV[5] ~= '' then
  sequence = record(ARGV[5], 'success', ARGV[7], ARGV[6], '', '')
else
  sequence = redis.call('GET', sequence_counter) or '0'
end
if ARGV[9] ~= '0' then
  redis.call('HSET', KEYS[3], 'sequence', sequence)
end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[3], 'disabled', ARGV[9])
end
redis.call('PEXPIRE', KEYS[3], ARGV[8])
return sequence
