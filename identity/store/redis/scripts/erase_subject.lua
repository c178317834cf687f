-- Ends everything of a subject and removes what is stored of it, in one step. What stays is the cut-off, by which verifiers
-- and late tokens are refused, under a name that cannot be read back.
--
-- KEYS[3]  index of the subject's families
-- KEYS[4]  cut-offs of the subject (hash)
-- KEYS[5]  feed of revocations
-- ARGV[5]  what the record calls the subject from now on
-- ARGV[6]  subject, for verifiers, who forget it when its last access token has expired
-- ARGV[7]  what the keys of families start with
-- ARGV[8]  milliseconds after which nothing that started before can be alive
--
-- Returns {sessions removed, other entries removed}, or 'OUTBOX_FULL'.

if outbox_is_overfull() then
  return 'OUTBOX_FULL'
end
local names = names_in(redis.call('GET', KEYS[3]) or '')
for _, name in ipairs(names) do
  redis.call('EXISTS', ARGV[7] .. name)
end
local sequence = record('subject.erased', 'success', '', ARGV[5], '', '')
local sessions = 0
for _, name in ipairs(names) do
  sessions = sessions + redis.call('UNLINK', ARGV[7] .. name)
end
local entries = redis.call('UNLINK', KEYS[3]) + redis.call('EXISTS', KEYS[4])
redis.call('HSET', KEYS[4], 'sequence', sequence, 'access_sequence', sequence)
for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
  if field ~= 'sequence' and field ~= 'access_sequence' then
    redis.call('HDEL', KEYS[4], field)
  end
end
redis.call('PEXPIRE', KEYS[4], ARGV[8])
announce(KEYS[5], 'subject', ARGV[6], sequence)
return {sessions, entries}
