-- Makes an answer of the claims source what is known of a subject, for its sessions that exist now.
--
-- KEYS[3]  family whose tokens it was asked for
-- KEYS[4]  cut-offs of its subject, and what is known of it (hash)
-- KEYS[5]  cut-off of the client of the family
-- ARGV[5]  family id              ARGV[6]  subject
-- ARGV[7]  roles (JSON array); '' to leave them
-- ARGV[8]  private claims (JSON members, each after a comma); '' for none
-- ARGV[9]  sequence number up to which everything had happened when the source was asked
-- ARGV[10] milliseconds after which nothing that has started before can be alive
--
-- Returns {verdict, sequence}; the sequence with ASK_AGAIN.

local subject_key, session, subject, roles, claims = KEYS[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

if outbox_is_full() then
  return {'OUTBOX_FULL', 0}
end
local family = read_family(KEYS[3])
local started = family and family.sequence
if not family or family.ending ~= '' or is_cut_off(subject_key, started) or is_cut_off(KEYS[5], started) then
  record('request.refused', 'refused', 'FAMILY_REVOKED', subject, session, '')
  return {'ENDED', 0}
end

local known = redis.call('HMGET', subject_key, 'roles', 'roles_sequence', 'claims', 'claims_sequence')
local roles_sequence, claims_sequence = tonumber(known[2] or '0'), tonumber(known[4] or '0')
local sequence = started
if (roles ~= '' and roles ~= known[1]) or claims ~= (known[3] or '') then
  -- Of two answers the one that was asked for later holds. Where that cannot be told, another question can.
  local noted = math.max(roles_sequence, claims_sequence)
  if noted > tonumber(ARGV[9]) then
    return {'ASK_AGAIN', noted}
  end
  sequence = record('subject.claims_changed', 'success', '', subject, session, '')
end

-- Unchanged, too: it holds for this session from now on, which may have started after it was noted.
if roles ~= '' then
  redis.call('HSET', subject_key, 'roles', roles, 'roles_sequence', math.max(roles_sequence, sequence))
end
if claims ~= '' or known[3] then
  redis.call('HSET', subject_key, 'claims', claims, 'claims_sequence', math.max(claims_sequence, sequence))
end
redis.call('PEXPIRE', subject_key, ARGV[10])
return {'NOTED', 0}
