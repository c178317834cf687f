-- How a family is kept: one string, because a million of them have to fit. Numbers of fixed size, then texts behind their
-- length; identity/store/redis/family_record.py reads the same. What many sessions have in common (their terms, the
-- user agent) is stored once a bucket, and named by its digest.

-- Layout, hash of the family secret, digest of the terms, created (ms); from there on (ms) rotated and used; how far the
-- budget is ahead of the last use (ms); sequence number of the start, generation, auth_time (s); digest of the last
-- idempotency key, subject, address, digest of the user agent, device, steps, ending.
local FAMILY = '>Bc16c16I6I4I4I2I6I4I5Bc0Bc0Bc0Bc0Bc0Bc0Hc0'
local LAYOUT = 1
-- What comes before the audience: layout, kind, absolute and idle lifetime (ms), client, scope, audience, roles.
local TERMS = '>Bc1I6I6Bc0Hc0Hc0Hc0'
-- No family outlives this from now on.
local shared_ms = 32 * 86400000

local function unpacked_family(stored)
  local f, _ = {}, nil
  _, f.secret, f.terms, f.created, f.rotated, f.used, f.debt, f.sequence, f.generation, f.auth_time, f.key, f.subject,
    f.address, f.agent, f.device, f.steps, f.ending = struct.unpack(FAMILY, stored)
  f.rotated, f.used = f.created + f.rotated, f.created + f.used
  return f
end

-- The family, or nil.
local function read_family(key)
  local stored = redis.call('GET', key)
  return stored and unpacked_family(stored)
end

local function packed_family(f)
  local function since_created(at_ms)
    return math.max(0, at_ms - f.created)
  end
  return struct.pack(FAMILY, LAYOUT, f.secret, f.terms, f.created, since_created(f.rotated), since_created(f.used),
    math.min(f.debt, 65535), f.sequence, f.generation, f.auth_time, #f.key, f.key, #f.subject, f.subject,
    #f.address, f.address, #f.agent, f.agent, #f.device, f.device, #f.steps, f.steps, #f.ending, f.ending)
end

local function write_family(key, f)
  redis.call('SET', key, packed_family(f), 'KEEPTTL')
end

-- Where a text is that sessions of this bucket share.
local function shared_key(digest)
  return string.sub(outbox, 1, -1 - #'outbox') .. 'shared:' .. digest
end

local function share(digest, shared)
  redis.call('SET', shared_key(digest), shared, 'PX', shared_ms)
end

local function unpacked_terms(packed)
  local terms, _ = {packed = packed}, nil
  _, _, terms.absolute_ms, terms.idle_ms, terms.client, terms.scope, terms.audience, terms.roles =
    struct.unpack(TERMS, packed)
  return terms
end

-- What a session was granted when it started.
local function terms_of(f)
  return unpacked_terms(redis.call('GET', shared_key(f.terms)))
end

-- When it ends if it is not used again.
local function ends_at(f, terms)
  return math.min(f.created + terms.absolute_ms, f.used + terms.idle_ms)
end

-- Writes down that a family is over: why, when, by which client, and what was said for it.
local function end_family(key, f, reason, cause)
  f.ending = table.concat({reason, text(now_ms), cjson.decode(circumstances).client, cause}, '\n')
  write_family(key, f)
end

-- The list of a subject's families: the end of each one's name, by start; what comes before that is the subject's.
local NAME_CHARS = 19

local function names_in(list)
  local names = {}
  for place = 1, #list, NAME_CHARS do
    names[#names + 1] = string.sub(list, place, place + NAME_CHARS - 1)
  end
  return names
end

-- The lineage: how many steps are not kept (3 bytes), then steps, the newest first. Each says when a generation was spent
-- (ms from the start of the session, 4 bytes), how many generations were skipped to it, which makes it a recovery (1), how
-- often its answer was repeated (1), and the address behind its length (1), 255 being that of the step after it.
local STEP_BYTES, SAME_ADDRESS = 7, 255

-- Where the step after the one at `place` begins.
local function next_step(steps, place)
  local length = string.byte(steps, place + STEP_BYTES - 1)
  return place + STEP_BYTES + (length == SAME_ADDRESS and 0 or length)
end

-- The lineage with the step that is made now.
local function with_step(f, address, skipped, most)
  local earlier, steps = 0, ''
  if f.steps ~= '' then
    earlier, steps = struct.unpack('>I3', f.steps), string.sub(f.steps, 4)
    local _, known = struct.unpack('>c6Bc0', steps)
    if known == address then
      steps = string.sub(steps, 1, STEP_BYTES - 1) .. string.char(SAME_ADDRESS) .. string.sub(steps, next_step(steps, 1))
    end
  end
  steps = struct.pack('>I4BBBc0', math.max(0, now_ms - f.created), skipped, 0, #address, address) .. steps
  local count, place, kept_to = 0, 1, #steps
  while place <= #steps do
    if count == most then
      kept_to = place - 1
    end
    count, place = count + 1, next_step(steps, place)
  end
  return struct.pack('>I3', earlier + math.max(0, count - most)) .. string.sub(steps, 1, kept_to)
end

-- The lineage with one more repetition of the last answer.
local function with_retry(steps)
  if steps == '' then
    return steps
  end
  local retries = string.byte(steps, 9)
  return string.sub(steps, 1, 8) .. string.char(math.min(255, retries + 1)) .. string.sub(steps, 10)
end

-- When a generation was spent (ms), or nil where the lineage does not say.
local function spent_at(f, generation)
  local place, spent = 4, f.generation - 1
  while place <= #f.steps and spent >= generation do
    local offset, skipped = struct.unpack('>I4B', f.steps, place)
    if spent == generation then
      return f.created + offset
    end
    place, spent = next_step(f.steps, place), spent - 1 - skipped
  end
  return nil
end
