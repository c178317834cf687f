-- Decides on a presented refresh token whose MAC was good, and records the decision. The order of the checks
-- is the specification: a theft is found before any limit is looked at, and a limit before anything rotates.
--
-- KEYS[3]  family (hash; the fields are listed in docs/store.md)
-- KEYS[4]  cut-off of the subject
-- KEYS[5]  cut-off of the client
-- KEYS[6]  budgets of the end user's address (hash); equals KEYS[3] where the address is not known
-- KEYS[7]  feed of revocations
-- ARGV[5]  family id              ARGV[6]  presented generation
-- ARGV[7]  hash of the presented family secret
-- ARGV[8]  client id of the caller
-- ARGV[9]  digest of the idempotency key, '' without one
-- ARGV[10] retry window with a key, ms
-- ARGV[11] leeway without a key, ms
-- ARGV[12] scopes asked for, by spaces; '' for all
-- ARGV[13] audience asked for, by spaces; '' for all
-- ARGV[14] end user (JSON); '{}' keeps what is stored
-- ARGV[15] refreshes per minute of a family
-- ARGV[16] successes per minute of an address       ARGV[17] failures per minute of an address
-- ARGV[18] how many generations a fast-forward may skip
-- ARGV[19] the end user's address, '' where it is not known
-- ARGV[20] how many steps of the lineage to keep
-- ARGV[21] how long after its last use a family may be fast-forwarded, ms
-- ARGV[22] 'REPORT' to let a family live whose spent token came back; 'ENFORCE' to end it
-- ARGV[23] 'LOOK' to decide, and to record a refusal, but to spend nothing yet; ''
--
-- Returns {verdict, now ms, retry after ms, sequence, live generation, absolute expiry ms, idle ms,
--          claims, roles, scope, audience}; from `retry after` on only where the verdict has it. Of a look the sequence
--          is that of the newest event.

local family_key, subject_key, client_key, address_key = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local session, presented, secret_hash, client = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local idempotency_key = ARGV[9]
local address_known = address_key ~= family_key

local family = redis.call('HMGET', family_key, 'secret', 'client', 'subject', 'generation', 'key', 'rotated',
  'used', 'expiry', 'idle', 'sequence', 'claims', 'scope', 'audience', 'revoked', 'limiter', 'roles', 'steps',
  'user')
local stored_hash, owner, subject, rotation_key = family[1], family[2], family[3] or '', family[5]
local current, rotated_ms, used_ms = tonumber(family[4]), tonumber(family[6]), tonumber(family[7])
local expiry_ms, idle_ms, started, revoked = tonumber(family[8]), tonumber(family[9]), family[10], family[14]

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
  local spent_ms = presented == current - 1 and rotated_ms
    or tonumber(string.match(family[17] or '', ' ' .. text(presented) .. '|(%d+)|'))
  local before, now = cjson.decode(family[18] or '{}'), cjson.decode(ARGV[14])
  local function compared(name)
    if not before[name] or not now[name] then
      return 'unknown'
    end
    return before[name] == now[name] and 'same' or 'other'
  end
  return cjson.encode({
    distance = current - presented, since_spent_ms = spent_ms and now_ms - spent_ms or -1, key = idempotency_key ~= '',
    address = compared('ip'), user_agent = compared('ua'), device = compared('device')})
end

local function stolen(verdict, type, reason, ended_by)
  if revoked then
    return refuse(verdict, reason)
  end
  end_family(family_key, ended_by, '')
  local told = verdict == 'REUSED' and evidence() or ''
  announce(KEYS[7], 'session', session, record(type, 'refused', reason, subject, session, presented, nil, told))
  return {verdict, now_ms}
end

-- The lineage with one more step, or one more retry of the last: how many came before those that are kept, then of
-- each the generation, when it was spent, the address ('' where it is not known), retries, and R if it was a recovery.
local function lineage(stored, step, is_retry)
  local steps, earlier = {}, 0
  for entry in string.gmatch(stored or '', '%S+') do
    if string.find(entry, '|', 1, true) then
      steps[#steps + 1] = entry
    else
      earlier = tonumber(entry)
    end
  end
  if is_retry then
    local before, retries, after = string.match(steps[#steps] or '', '^(.*|)(%d+)(|R?)$')
    steps[#steps] = before and before .. (tonumber(retries) + 1) .. after
  else
    steps[#steps + 1] = step
    if #steps > tonumber(ARGV[20]) then
      table.remove(steps, 1)
      earlier = earlier + 1
    end
  end
  return earlier .. ' ' .. table.concat(steps, ' ')
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
if not stored_hash or stored_hash ~= secret_hash then
  return refuse('UNKNOWN', 'REFRESH_TOKEN_INVALID')
end
if owner ~= client then
  return stolen('WRONG_CLIENT', 'refresh.wrong_client', 'REFRESH_TOKEN_INVALID', 'WRONG_CLIENT')
end
local of_subject = redis.call('HMGET', subject_key, 'sequence', 'roles', 'roles_sequence', 'claims', 'claims_sequence')
local cut_off, roles, claims = of_subject[1], family[16], family[11]
if of_subject[2] and tonumber(started) <= tonumber(of_subject[3]) then
  roles = of_subject[2]
end
if of_subject[4] and tonumber(started) <= tonumber(of_subject[5]) then
  claims = claims .. of_subject[4]
end
if revoked or (cut_off and tonumber(started) <= tonumber(cut_off)) or is_cut_off(client_key, started) then
  return refuse('REVOKED', 'FAMILY_REVOKED')
end
if now_ms >= expiry_ms or now_ms >= used_ms + idle_ms then
  return refuse('EXPIRED', 'REFRESH_TOKEN_EXPIRED')
end

local verdict, live
if presented == current then
  verdict, live = 'ROTATED', current + 1
elseif presented > current then
  if presented - current > tonumber(ARGV[18]) or now_ms >= used_ms + tonumber(ARGV[21]) then
    return refuse('UNKNOWN', 'REFRESH_TOKEN_INVALID')
  end
  verdict, live = 'RECOVERED', presented + 1
else
  local age_ms = now_ms - rotated_ms
  local same_key = rotation_key ~= '' and rotation_key == idempotency_key and age_ms < tonumber(ARGV[10])
  local no_keys = rotation_key == '' and age_ms < tonumber(ARGV[11])
  if presented == current - 1 and (same_key or no_keys) then
    verdict, live = 'REPEATED', current
  elseif ARGV[22] == 'REPORT' then
    verdict, live = 'REPORTED', current
  else
    return stolen('REUSED', 'refresh.reuse_detected', 'REFRESH_TOKEN_REUSED', 'REUSE_DETECTED')
  end
end

if not is_subset(ARGV[12], family[12]) then
  return refuse('SCOPE_EXCEEDED', 'SCOPE_NOT_ALLOWED')
end
if not is_subset(ARGV[13], family[13]) then
  return refuse('AUDIENCE_EXCEEDED', 'AUDIENCE_NOT_ALLOWED')
end
if outbox_is_full() then
  return {'OUTBOX_FULL', now_ms}
end

local family_arrival, wait = limiter_step(family[15], tonumber(ARGV[15]))
local address_arrival
if wait == 0 and address_known then
  address_arrival, wait = limiter_step(redis.call('HGET', address_key, 'successes'), tonumber(ARGV[16]))
end
if wait > 0 then
  record('refresh.refused', 'refused', 'RATE_LIMITED', subject, session, presented)
  return {'RATE_LIMITED', now_ms, wait}
end
if ARGV[23] == 'LOOK' then
  local newest = tonumber(redis.call('GET', sequence_counter) or '0')
  return {verdict, now_ms, 0, newest, live, expiry_ms, idle_ms, claims, roles, family[12], family[13]}
end
if address_arrival then
  redis.call('HSET', address_key, 'successes', text(address_arrival))
  redis.call('PEXPIRE', address_key, 120000)
end

if verdict == 'REPORTED' then
  -- As if it had been enforced, but for the outcome.
  local sequence = record('refresh.reuse_detected', 'success', 'REFRESH_TOKEN_REUSED', subject, session, presented, nil,
    evidence())
  redis.call('HSET', family_key, 'limiter', text(family_arrival), 'used', text(now_ms))
  return {verdict, now_ms, 0, sequence, live, expiry_ms, idle_ms, claims, roles, family[12], family[13]}
end

local types = {ROTATED = 'tokens.refreshed', REPEATED = 'refresh.retry_answered', RECOVERED = 'family.recovered'}
local sequence = record(types[verdict], 'success', '', subject, session, live)
local step = string.format('%d|%s|%s|0|%s', presented, text(now_ms), ARGV[19], verdict == 'RECOVERED' and 'R' or '')
local written = {'limiter', text(family_arrival), 'used', text(now_ms),
  'steps', lineage(family[17], step, verdict == 'REPEATED')}
if verdict ~= 'REPEATED' then
  for _, value in ipairs({'generation', live, 'key', idempotency_key, 'rotated', text(now_ms)}) do
    written[#written + 1] = value
  end
end
if ARGV[14] ~= '{}' then
  written[#written + 1] = 'user'
  written[#written + 1] = ARGV[14]
end
redis.call('HSET', family_key, unpack(written))
return {verdict, now_ms, 0, sequence, live, expiry_ms, idle_ms, claims, roles, family[12], family[13]}
