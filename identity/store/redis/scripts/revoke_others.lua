-- Ends the sessions of a subject but one. One event for each that was alive, beside the one that says what was asked for.
--
-- KEYS[3]  the family that goes on
-- KEYS[4]  families of its subject (sorted set)
-- KEYS[5]  cut-off of the subject
-- KEYS[6]  feed of revocations
-- ARGV[5]  id of the family that goes on
-- ARGV[6]  the client it must belong to; '' for any
-- ARGV[7]  cause
--
-- Returns a verdict; 'OUTBOX_FULL' when even revocations have to wait for the backend.

if outbox_is_overfull() then
  return 'OUTBOX_FULL'
end
local kept = redis.call('HMGET', KEYS[3], 'client', 'subject')
local owner, subject = kept[1], kept[2]
local refusal = refusal_to_revoke(owner, subject, ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local prefix, others = string.sub(KEYS[3], 1, -1 - #ARGV[5]), {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  if name ~= ARGV[5] then
    local other = redis.call('HMGET', prefix .. name, 'revoked', 'sequence')
    if other[2] and not other[1] and not is_cut_off(KEYS[5], other[2]) then
      others[#others + 1] = name
    end
  end
end
record('subject.other_sessions_revoked', 'success', ARGV[7], subject, ARGV[5], '')
for _, name in ipairs(others) do
  end_family(prefix .. name, 'REVOKED_WITH_OTHERS', ARGV[7])
  announce(KEYS[6], 'session', name,
    record('session.revoked', 'success', 'REVOKED_WITH_OTHERS', subject, name, '', id_about(name)))
end
return 'REVOKED'
