-- Decides on a presented refresh token whose MAC was good, and records the decision. The order of the checks
-- is the specification: a theft is found before any limit is looked at, and a limit before anything rotates.
--
-- KEYS[3]  family
-- KEYS[4]  cut-off of the subject
-- KEYS[5]  cut-off of the client
-- KEYS[6]  budgets of the end user's address (hash); equals KEYS[3] where the address is not known
-- KEYS[7]  feed of revocations
-- KEYS[8]  user agent, shared; equals KEYS[3] where it is not known
-- ARGV[5]  family id              ARGV[6]  presented generation
-- ARGV[7]  hash of the presented family secret
-- ARGV[8]  client id of the caller
-- ARGV[9]  digest of the idempotency key, '' without one
-- ARGV[10] retry window with a key, ms
-- ARGV[11] leeway without a key, ms
-- ARGV[12] scopes asked for, by spaces; '' for all
-- ARGV[13] audience asked for, by spaces; '' for all
-- ARGV[14] the end user's device, '' where it is not known
-- ARGV[15] refreshes per minute of a family
-- ARGV[16] successes per minute of an address       ARGV[17] failures per minute of an address
-- ARGV[18] how many generations a fast-forward may skip
-- ARGV[19] the end user's address (4 or 16 bytes), '' where it is not known
-- ARGV[20] how many steps of the lineage to keep, two or more
-- ARGV[21] how long after its last use a family may be fast-forwarded, ms
-- ARGV[22] 'REPORT' to let a family live whose spent token came back; 'ENFORCE' to end it
-- ARGV[23] digest of the end user's user agent, '' where it is not known; ARGV[24] the user agent
-- ARGV[25] 'LOOK' to decide, and to record a refusal, but to spend nothing yet; ''
--
-- Returns {verdict, now ms, sequence, live generation, absolute expiry ms, subject, auth_time s, roles, private claims,
-- terms} of what was spent; of a look the sequence is that of the newest event. Else {verdict, now ms}, with how many ms to
-- wait after RATE_LIMITED.

local family_key, subject_key, client_key, address_key = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local session, presented, secret_hash, client = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local idempotency_key = ARGV[9]
local address_known = address_key ~= family_key
local address, agent_digest, device = ARGV[19], ARGV[23], ARGV[14]

local family = read_family(family_key)
local subject = family and family.subject or ''
local revoked = family and family.ending ~= ''
local current = family and family.generation

-- A failure counts against the address. Beyond its budget the answer says nothing but to wait, whatever was
-- wrong; a theft is never withheld.
local function refuse(verdict, reason)
  if outbox_is_full() then
    return {'OUTBOX_FULL', now_ms}
  end
  if address_known then
    local arrival, wait = limiter_step(redis.call('HGET', address_key, 'failures'), tonumber(ARGV[17]))
    redis.call('HSET', address_key, 'failures', text(arrival))
    redis.call('PEXPIRE', address_key, 120000)
    if wait > 0 then
      record('refresh.refused', 'refused', 'RATE_LIMITED', subject, session, presented)
      return {'RATE_LIMITED', now_ms, wait}
    end
  end
  record('refresh.refused', 'refused', reason, subject, session, presented)
  return {verdict, now_ms}
end

-- What speaks for a theft, and what for a client that is only confused: how many generations ago the token was spent
-- and when, whether it came from the same address, program and device as the last use, and whether with a key.
local function evidence()
  local spent_ms = presented == current - 1 and family.rotated or spent_at(family, presented)
  local function compared(before, now)
    if before == '' or now == '' then
      return 'unknown'
    end
    return before == now and 'same' or 'other'
  end
  return cjson.encode({
    distance = current - presented, since_spent_ms = spent_ms and now_ms - spent_ms or -1, key = idempotency_key ~= '',
    address = compared(family.address, address), user_agent = compared(family.agent, agent_digest),
    device = compared(family.device, device)})
end

local function stolen(verdict, type, reason, ended_by)
  if revoked then
    return refuse(verdict, reason)
  end
  local told = verdict == 'REUSED' and evidence() or ''
  end_family(family_key, family, ended_by, '')
  announce(KEYS[7], 'session', session, record(type, 'refused', reason, subject, session, presented, nil, told))
  return {verdict, now_ms}
end

-- Whether every one of `wanted` (by spaces) is in `granted` (by spaces).
local function is_subset(wanted, granted)
  local padded = ' ' .. granted .. ' '
  for word in string.gmatch(wanted, '%S+') do
    if not string.find(padded, ' ' .. word .. ' ', 1, true) then
      return false
    end
  end
  return true
end

-- A token with a good MAC and a wrong family secret was made by someone who has the server's secret only.
if not family or family.secret ~= secret_hash then
  return refuse('UNKNOWN', 'REFRESH_TOKEN_INVALID')
end
local terms, started = terms_of(family), family.sequence
if terms.client ~= client then
  return stolen('WRONG_CLIENT', 'refresh.wrong_client', 'REFRESH_TOKEN_INVALID', 'WRONG_CLIENT')
end
local of_subject = redis.call('HMGET', subject_key, 'sequence', 'roles', 'roles_sequence', 'claims', 'claims_sequence')
local cut_off, roles, private = of_subject[1], terms.roles, ''
if of_subject[2] and started <= tonumber(of_subject[3]) then
  roles = of_subject[2]
end
if of_subject[4] and started <= tonumber(of_subject[5]) then
  private = of_subject[4]
end
if revoked or (cut_off and started <= tonumber(cut_off)) or is_cut_off(client_key, started) then
  return refuse('REVOKED', 'FAMILY_REVOKED')
end
if now_ms >= ends_at(family, terms) then
  return refuse('EXPIRED', 'REFRESH_TOKEN_EXPIRED')
end

local verdict, live
if presented == current then
  verdict, live = 'ROTATED', current + 1
elseif presented > current then
  if presented - current > tonumber(ARGV[18]) or now_ms >= family.used + tonumber(ARGV[21]) then
    return refuse('UNKNOWN', 'REFRESH_TOKEN_INVALID')
  end
  verdict, live = 'RECOVERED', presented + 1
else
  local age_ms = now_ms - family.rotated
  local same_key = family.key ~= '' and family.key == idempotency_key and age_ms < tonumber(ARGV[10])
  local no_keys = family.key == '' and age_ms < tonumber(ARGV[11])
  if presented == current - 1 and (same_key or no_keys) then
    verdict, live = 'REPEATED', current
  elseif ARGV[22] == 'REPORT' then
    verdict, live = 'REPORTED', current
  else
    return stolen('REUSED', 'refresh.reuse_detected', 'REFRESH_TOKEN_REUSED', 'REUSE_DETECTED')
  end
end

if not is_subset(ARGV[12], terms.scope) then
  return refuse('SCOPE_EXCEEDED', 'SCOPE_NOT_ALLOWED')
end
if not is_subset(ARGV[13], terms.audience) then
  return refuse('AUDIENCE_EXCEEDED', 'AUDIENCE_NOT_ALLOWED')
end
if outbox_is_full() then
  return {'OUTBOX_FULL', now_ms}
end

local family_arrival, wait = limiter_step(family.used + family.debt, tonumber(ARGV[15]))
local address_arrival
if wait == 0 and address_known then
  address_arrival, wait = limiter_step(redis.call('HGET', address_key, 'successes'), tonumber(ARGV[16]))
end
if wait > 0 then
  record('refresh.refused', 'refused', 'RATE_LIMITED', subject, session, presented)
  return {'RATE_LIMITED', now_ms, wait}
end

local function spent(sequence)
  return {verdict, now_ms, sequence, live, family.created + terms.absolute_ms, subject, family.auth_time, roles, private,
    terms.packed}
end

if ARGV[25] == 'LOOK' then
  return spent(tonumber(redis.call('HGET', ledger, 'sequence') or '0'))
end

if address_arrival then
  redis.call('HSET', address_key, 'successes', text(address_arrival))
  redis.call('PEXPIRE', address_key, 120000)
end

local sequence
if verdict == 'REPORTED' then
  -- As if it had been enforced, but for the outcome.
  sequence = record('refresh.reuse_detected', 'success', 'REFRESH_TOKEN_REUSED', subject, session, presented, nil,
    evidence())
else
  local types = {ROTATED = 'tokens.refreshed', REPEATED = 'refresh.retry_answered', RECOVERED = 'family.recovered'}
  sequence = record(types[verdict], 'success', '', subject, session, live, nil, nil,
    text(math.min(family.created + terms.absolute_ms, now_ms + terms.idle_ms)))
  local user_known = address ~= '' or agent_digest ~= '' or device ~= ''
  local known_address = user_known and address or family.address
  if verdict == 'REPEATED' then
    family.lineage = with_retry(family, known_address)
  else
    family.lineage = with_step(family, address, known_address, presented - current, tonumber(ARGV[20]))
    family.generation, family.key, family.rotated = live, idempotency_key, now_ms
  end
  if user_known then
    if agent_digest ~= '' and agent_digest ~= family.agent then
      share(KEYS[8], ARGV[24])
    end
    family.address, family.agent, family.device = address, agent_digest, device
  end
end
family.used, family.debt = now_ms, math.floor(family_arrival - now_ms + 0.5)
write_family(family_key, family)
return spent(sequence)
