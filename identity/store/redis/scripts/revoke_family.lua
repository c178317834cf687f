-- Ends a family. Idempotent; one that is not stored, or is another client's, is left as it is.
--
-- KEYS[3]  family
-- KEYS[4]  feed of revocations
-- ARGV[5]  family id
-- ARGV[6]  the client it must belong to; '' for any
-- ARGV[7]  cause
-- ARGV[8]  why it is over from now on
--
-- Returns a verdict; 'OUTBOX_FULL' when even revocations have to wait for the backend.

if outbox_is_overfull() then
  return 'OUTBOX_FULL'
end
local family = read_family(KEYS[3])
local owner, subject = family and terms_of(family).client, family and family.subject
local refusal = refusal_to_revoke(owner, subject, ARGV[5], ARGV[6])
if refusal then
  return refusal
end
local sequence = record('session.revoked', 'success', ARGV[7], subject, ARGV[5], '')
-- Also when it was revoked before: whoever asks again may have reason to.
announce(KEYS[4], 'session', ARGV[5], sequence)
if family.ending ~= '' then
  return 'ALREADY'
end
end_family(KEYS[3], family, ARGV[8], ARGV[7])
return 'REVOKED'
