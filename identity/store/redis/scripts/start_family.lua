-- Starts a session (token family) at generation 0 and records it.
--
-- KEYS[3]  family (hash; the fields are listed in docs/store.md)
-- KEYS[4]  families of the subject (sorted set: family id by start, ms)
-- KEYS[5]  cut-off of the client
-- KEYS[6]  idempotency record (hash); equals KEYS[3] where the call has no key
-- KEYS[7]  cut-off of the subject
-- ARGV[5]  family id              ARGV[6]  hash of the family secret
-- ARGV[7]  subject                ARGV[8]  client id
-- ARGV[9]  client kind            ARGV[10] absolute lifetime, ms
-- ARGV[11] idle lifetime, ms      ARGV[12] claims of every access token but the roles (JSON members)
-- ARGV[13] audience, by spaces    ARGV[14] scope, by spaces
-- ARGV[15] end user (JSON)        ARGV[16] how long the records outlive the session, ms
-- ARGV[17] request digest, '' without an idempotency key
-- ARGV[18] sealed answer          ARGV[19] idempotency window, ms
-- ARGV[20] how many sessions of a subject can be listed; older ones go on unlisted
-- ARGV[21] roles (JSON array)
-- ARGV[22] how many sessions a subject may have at one client
-- KEYS[8]  feed of revocations
--
-- Returns {verdict, now ms, sequence, absolute expiry ms, sealed answer}.

local family_key, families_key, client_key, idempotency_key = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local family, subject, client = ARGV[5], ARGV[7], ARGV[8]
local absolute_ms, tombstone_ms = tonumber(ARGV[10]), tonumber(ARGV[16])
local request_digest = ARGV[17]

if outbox_is_full() then
  return {'OUTBOX_FULL', now_ms}
end

if redis.call('HGET', client_key, 'disabled') == '1' then
  record('request.refused', 'refused', 'CLIENT_DISABLED', subject, '', '')
  return {'CLIENT_DISABLED', now_ms}
end

if request_digest ~= '' then
  local first = redis.call('HMGET', idempotency_key, 'request', 'sealed', 'expiry', 'session')
  if first[1] then
    if first[1] ~= request_digest then
      record('request.refused', 'refused', 'IDEMPOTENCY_KEY_REUSED', subject, '', '')
      return {'KEY_REUSED', now_ms}
    end
    -- The first family has the same subject, so its key is in this slot and differs in its last part only.
    local first_key = string.sub(family_key, 1, -1 - #family) .. first[4]
    local state = redis.call('HMGET', first_key, 'revoked', 'sequence')
    local started = state[2]
    if state[1] or not started or is_cut_off(KEYS[7], started) or is_cut_off(client_key, started) then
      record('request.refused', 'refused', 'FAMILY_REVOKED', subject, first[4], '')
      return {'FAMILY_REVOKED', now_ms}
    end
    local sequence = record('tokens.reissued', 'success', '', subject, first[4], 0)
    return {'REPEATED', now_ms, sequence, tonumber(first[3]), first[2]}
  end
end

-- Ends what was not used for longest where the subject has as many sessions at this client as it may. Looks at them
-- only if there can be as many; of all clients together at most ARGV[20] are listed.
local gone = {}
local function make_room(most)
  if redis.call('ZCARD', families_key) < most then
    return
  end
  local prefix = string.sub(family_key, 1, -1 - #family)
  local alive, oldest, oldest_used = 0, nil, nil
  for _, name in ipairs(redis.call('ZRANGE', families_key, 0, -1)) do
    local other = redis.call('HMGET', prefix .. name, 'client', 'revoked', 'sequence', 'used', 'expiry', 'idle')
    local used_ms = tonumber(other[4])
    if not other[1] then
      gone[#gone + 1] = name
    elseif other[1] == client and not other[2] and now_ms < math.min(tonumber(other[5]), used_ms + tonumber(other[6]))
      and not is_cut_off(KEYS[7], other[3]) and not is_cut_off(client_key, other[3]) then
      alive = alive + 1
      if not oldest_used or used_ms < oldest_used then
        oldest, oldest_used = name, used_ms
      end
    end
  end
  if alive >= most then
    end_family(prefix .. oldest, 'SESSION_CAP', '')
    announce(KEYS[8], 'session', oldest,
      record('session.revoked', 'success', 'SESSION_CAP', subject, oldest, '', id_about(oldest)))
  end
end

make_room(tonumber(ARGV[22]))
local sequence = record('tokens.issued', 'success', '', subject, family, 0)
local expiry_ms = now_ms + absolute_ms
redis.call('HSET', family_key,
  'secret', ARGV[6], 'subject', subject, 'client', client, 'kind', ARGV[9],
  'generation', 0, 'rotated', text(now_ms), 'key', '', 'created', text(now_ms), 'used', text(now_ms),
  'expiry', text(expiry_ms), 'idle', ARGV[11], 'sequence', sequence, 'claims', ARGV[12],
  'roles', ARGV[21], 'audience', ARGV[13], 'scope', ARGV[14], 'user', ARGV[15])
redis.call('PEXPIRE', family_key, absolute_ms + tombstone_ms)

redis.call('ZADD', families_key, text(now_ms), family)
redis.call('ZREMRANGEBYSCORE', families_key, '-inf', '(' .. text(now_ms - 30 * 86400000))
for _, name in ipairs(gone) do
  redis.call('ZREM', families_key, name)
end
redis.call('ZREMRANGEBYRANK', families_key, 0, -1 - tonumber(ARGV[20]))
if redis.call('PTTL', families_key) < absolute_ms then
  redis.call('PEXPIRE', families_key, absolute_ms)
end

if request_digest ~= '' then
  redis.call('HSET', idempotency_key, 'request', request_digest, 'sealed', ARGV[18],
    'expiry', text(expiry_ms), 'session', family)
  redis.call('PEXPIRE', idempotency_key, ARGV[19])
end
return {'STARTED', now_ms, sequence, expiry_ms, ''}
