-- Ends the sessions of a subject but one. One event for each that was alive, beside the one that says what was asked for.
--
-- KEYS[3]  the family that goes on
-- KEYS[4]  index of its subject's families
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
local kept = read_family(KEYS[3])
local owner, subject = kept and terms_of(kept).client, kept and kept.subject
local refusal = refusal_to_revoke(owner, subject, ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local prefix, others = string.sub(KEYS[3], 1, -1 - NAME_CHARS), {}
for _, name in ipairs(names_in(redis.call('GET', KEYS[4]) or '')) do
  local session, other = string.sub(ARGV[5], 1, -1 - NAME_CHARS) .. name, read_family(prefix .. name)
  if session ~= ARGV[5] and other and other.ending == '' and not is_cut_off(KEYS[5], other.sequence) then
    others[#others + 1] = {session = session, name = name, family = other}
  end
end
record('subject.other_sessions_revoked', 'success', ARGV[7], subject, ARGV[5], '')
for _, other in ipairs(others) do
  local session = other.session
  end_family(prefix .. other.name, other.family, 'REVOKED_WITH_OTHERS', ARGV[7])
  announce(KEYS[6], 'session', session,
    record('session.revoked', 'success', 'REVOKED_WITH_OTHERS', subject, session, '', id_about(session)))
end
return 'REVOKED'
