-- Records that a token is exchanged for a narrower one, unless it was taken back. No state is kept of the new one.
--
-- KEYS[3]  denial of the presented token
-- KEYS[4]  family of its session; the same as KEYS[3] where it has none
-- KEYS[5]  cut-offs of its subject
-- KEYS[6]  cut-off of the client it was given to
-- KEYS[7]  cut-off of the client that asks
-- ARGV[5]  subject
-- ARGV[6]  session id, empty where it has none
-- ARGV[7]  sequence number at which the presented token was recorded
-- ARGV[8]  when it expires (s)
--
-- Returns {verdict, now ms, sequence}.

local subject, session, issued_at_sequence = ARGV[5], ARGV[6], tonumber(ARGV[7])

if outbox_is_full() then
  return {'OUTBOX_FULL', now_ms}
end

local function refuse(verdict, reason)
  record('request.refused', 'refused', reason, subject, session, '')
  return {verdict, now_ms}
end

if redis.call('HGET', KEYS[7], 'disabled') == '1' then
  return refuse('CLIENT_DISABLED', 'CLIENT_DISABLED')
end

local function session_has_ended()
  local family = read_family(KEYS[4])
  return not family or family.ending ~= '' or is_cut_off(KEYS[5], family.sequence) or is_cut_off(KEYS[6], family.sequence)
end

local access_cut_off = redis.call('HGET', KEYS[5], 'access_sequence')
if tonumber(ARGV[8]) * 1000 <= now_ms
  or redis.call('EXISTS', KEYS[3]) == 1
  or is_cut_off(KEYS[5], issued_at_sequence)
  or is_cut_off(KEYS[6], issued_at_sequence)
  or (access_cut_off and issued_at_sequence <= tonumber(access_cut_off))
  or (session ~= '' and session_has_ended())
then
  return refuse('TOKEN_INVALID', 'SUBJECT_TOKEN_INVALID')
end

return {'EXCHANGED', now_ms, record('token.exchanged', 'success', '', subject, session, '')}
