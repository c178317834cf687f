-- Starts a session (token family) at generation 0 and records it.
--
-- KEYS[3]  family
-- KEYS[4]  index of the subject's families
-- KEYS[5]  cut-off of the client
-- KEYS[6]  idempotency record (hash); equals KEYS[3] where the call has no key
-- KEYS[7]  cut-off of the subject
-- KEYS[8]  feed of revocations
-- KEYS[9]  terms, shared
-- KEYS[10] user agent, shared; equals KEYS[3] where it is not known
-- ARGV[5]  family id              ARGV[6]  hash of the family secret
-- ARGV[7]  subject                ARGV[8]  auth_time, s; 0 where it is not known
-- ARGV[9]  terms                  ARGV[10] their digest
-- ARGV[11] the end user's address (4 or 16 bytes) and ARGV[12] device; '' where not known
-- ARGV[13] user agent and ARGV[14] its digest; '' where not known
-- ARGV[15] how long the records outlive the session, ms
-- ARGV[16] request digest, '' without an idempotency key
-- ARGV[17] sealed answer          ARGV[18] idempotency window, ms
-- ARGV[19] how many sessions of a subject can be listed; older ones go on unlisted
-- ARGV[20] how many sessions a subject may have at one client
--
-- Returns {verdict, now ms, sequence, absolute expiry ms, sealed answer}.

local family_key, index_key, client_key, idempotency_key = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local session, subject, request_digest = ARGV[5], ARGV[7], ARGV[16]

if outbox_is_full() then
  return {'OUTBOX_FULL', now_ms}
end

if redis.call('HGET', client_key, 'disabled') == '1' then
  record('request.refused', 'refused', 'CLIENT_DISABLED', subject, '', '')
  return {'CLIENT_DISABLED', now_ms}
end

local function is_over(f)
  return f.ending ~= '' or is_cut_off(KEYS[7], f.sequence) or is_cut_off(client_key, f.sequence)
end

if request_digest ~= '' then
  local first = redis.call('HMGET', idempotency_key, 'request', 'sealed', 'expiry', 'session')
  if first[1] then
    if first[1] ~= request_digest then
      record('request.refused', 'refused', 'IDEMPOTENCY_KEY_REUSED', subject, '', '')
      return {'KEY_REUSED', now_ms}
    end
    -- The first family has the same subject, so its key is in this slot and differs in its last part only.
    local before = read_family(string.sub(family_key, 1, -1 - NAME_CHARS) .. string.sub(first[4], -NAME_CHARS))
    if not before or is_over(before) then
      record('request.refused', 'refused', 'FAMILY_REVOKED', subject, first[4], '')
      return {'FAMILY_REVOKED', now_ms}
    end
    local sequence = record('tokens.reissued', 'success', '', subject, first[4], 0, nil, nil,
      text(ends_at(before, terms_of(before))))
    return {'REPEATED', now_ms, sequence, tonumber(first[3]), first[2]}
  end
end

local terms = unpacked_terms(ARGV[9])

-- Ends what was not used for longest where the subject has as many sessions at this client as it may; gives the index
-- without those that are gone. Looks at them only if there can be as many: of all clients together ARGV[19] are listed.
local function make_room(index, most)
  if #index < most * NAME_CHARS then
    return index
  end
  local prefix, known_terms = string.sub(family_key, 1, -1 - NAME_CHARS), {}
  local listed, alive, oldest, oldest_name = {}, 0, nil, nil
  for _, name in ipairs(names_in(index)) do
    local other = read_family(prefix .. name)
    if other then
      listed[#listed + 1] = name
      known_terms[other.terms] = known_terms[other.terms] or terms_of(other)
      local granted = known_terms[other.terms]
      if granted.client == terms.client and now_ms < ends_at(other, granted) and not is_over(other) then
        alive = alive + 1
        if not oldest or other.used < oldest.used then
          oldest, oldest_name = other, name
        end
      end
    end
  end
  if alive >= most then
    local ended = string.sub(session, 1, -1 - NAME_CHARS) .. oldest_name
    end_family(prefix .. oldest_name, oldest, 'SESSION_CAP', '')
    announce(KEYS[8], 'session', ended,
      record('session.revoked', 'success', 'SESSION_CAP', subject, ended, '', id_about(ended)))
  end
  return table.concat(listed)
end

local index = make_room(redis.call('GET', index_key) or '', tonumber(ARGV[20]))
local expiry_ms = now_ms + terms.absolute_ms
local sequence = record('tokens.issued', 'success', '', subject, session, 0, nil, nil,
  text(now_ms + math.min(terms.absolute_ms, terms.idle_ms)))
share(KEYS[9], ARGV[9])
if ARGV[14] ~= '' then
  share(KEYS[10], ARGV[13])
end
redis.call('SET', family_key, packed_family({
  secret = ARGV[6], terms = ARGV[10], created = now_ms, rotated = now_ms, used = now_ms, debt = 0, sequence = sequence,
  generation = 0, auth_time = tonumber(ARGV[8]), key = '', subject = subject, address = ARGV[11], agent = ARGV[14],
  device = ARGV[12], lineage = '', ending = ''}), 'PX', text(terms.absolute_ms + tonumber(ARGV[15])))

local listed = string.sub(index .. string.sub(session, -NAME_CHARS), -tonumber(ARGV[19]) * NAME_CHARS)
redis.call('SET', index_key, listed, 'PX', text(math.max(terms.absolute_ms, redis.call('PTTL', index_key))))

if request_digest ~= '' then
  redis.call('HSET', idempotency_key, 'request', request_digest, 'sealed', ARGV[17],
    'expiry', text(expiry_ms), 'session', session)
  redis.call('PEXPIRE', idempotency_key, ARGV[18])
end
return {'STARTED', now_ms, sequence, expiry_ms, ''}
