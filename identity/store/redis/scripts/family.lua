-- How a family is kept: one string, because a million of them have to fit. Numbers of fixed size, then texts behind their
-- length; identity/store/redis/family_record.py reads the same, and makes what is shared. What many sessions have in common (their terms, the
-- user agent) is stored once a bucket, and named by its digest.

-- Layout, hash of the family secret, digest of the terms, created (ms); from there on (ms) rotated and used; how far the
-- budget is ahead of the last use (ms); sequence number of the start, generation, auth_time (s); digest of the last
-- idempotency key, subject, address, digest of the user agent, device, lineage, ending.
local FAMILY = '>Bc16c10I6I4I4I2I5I4I4Bc0Bc0Bc0Bc0Bc0Bc0Bc0'
local LAYOUT = 1
-- What comes before the audience: layout, kind, absolute and idle lifetime (ms), client, scope, audience, roles.
local TERMS = '>Bc1I6I6Bc0Hc0Hc0Hc0'
-- No family outlives this from now on.
local shared_ms = 32 * 86400000

local function unpacked_family(stored)
  local f, _ = {}, nil
  _, f.secret, f.terms, f.created, f.rotated, f.used, f.debt, f.sequence, f.generation, f.auth_time, f.key, f.subject,
    f.address, f.agent, f.device, f.lineage, f.ending = struct.unpack(FAMILY, stored)
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
    #f.address, f.address, #f.agent, f.agent, #f.device, f.device, #f.lineage, f.lineage, #f.ending, f.ending)
end

local function write_family(key, f)
  redis.call('SET', key, packed_family(f), 'KEEPTTL')
end

-- Where a text is that sessions of this bucket share.
local function shared_key(digest)
  return string.sub(outbox, 1, -1 - #'outbox') .. 'shared:' .. digest
end

local function share(key, shared)
  redis.call('SET', key, shared, 'PX', shared_ms)
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

-- The index of a subject's families: of each the end of its id, by start. Their keys end in the same.
local NAME_CHARS = 19

local function names_in(index)
  local names = {}
  for place = 1, #index, NAME_CHARS do
    names[#names + 1] = string.sub(index, place, place + NAME_CHARS - 1)
  end
  return names
end

-- The lineage: how many steps are not kept (2 bytes), then steps, the newest first. The newest was made when the family was
-- rotated last. Each has a byte of flags, how long before the newer one it was made (whole seconds, up to 4 bytes as the
-- flags say), and where its flag is set: how many generations it skipped, being a recovery (1 byte); how often its answer was
-- repeated (1 byte); the address it came from behind its length, where that is not the one of the newer step, or of the
-- family for the newest.
local SECONDS, SKIPPED, RETRIED, ADDRESS = 7, 8, 16, 32

local function has(flags, flag)
  return bit.band(flags, flag) ~= 0
end

-- The step at `place` and where the next one begins.
local function read_step(lineage, place)
  local step, flags = {}, string.byte(lineage, place)
  local width = bit.band(flags, SECONDS)
  step.seconds, step.skipped, step.retries, place = 0, 0, 0, place + 1
  if width > 0 then
    step.seconds, place = struct.unpack('>I' .. width, lineage, place)
  end
  if has(flags, SKIPPED) then
    step.skipped, place = string.byte(lineage, place), place + 1
  end
  if has(flags, RETRIED) then
    step.retries, place = string.byte(lineage, place), place + 1
  end
  if has(flags, ADDRESS) then
    step.address, place = struct.unpack('Bc0', lineage, place)
  end
  return step, place
end

local function packed_step(step)
  local width = step.seconds == 0 and 0 or step.seconds < 256 and 1 or step.seconds < 65536 and 2 or 4
  local flags = width + (step.skipped > 0 and SKIPPED or 0) + (step.retries > 0 and RETRIED or 0)
    + (step.address and ADDRESS or 0)
  return string.char(flags) .. (width > 0 and struct.pack('>I' .. width, step.seconds) or '')
    .. (step.skipped > 0 and string.char(step.skipped) or '') .. (step.retries > 0 and string.char(step.retries) or '')
    .. (step.address and string.char(#step.address) .. step.address or '')
end

local function unless(address, known)
  return address ~= known and address or nil
end

-- The lineage with the step that is made now, at most `most` (two or more) of them. `known` is what the family's address is
-- from now on.
local function with_step(f, address, known, skipped, most)
  local made = packed_step({seconds = 0, skipped = skipped, retries = 0, address = unless(address, known)})
  if f.lineage == '' then
    return '\0\0' .. made
  end
  local earlier = struct.unpack('>I2', f.lineage)
  local step, from = read_step(f.lineage, 3)
  step.seconds = math.max(0, math.floor(now_ms / 1000) - math.floor(f.rotated / 1000))
  step.address = unless(step.address or f.address, address)
  local count, kept_to, place, _ = 2, -1, from, nil
  while place <= #f.lineage do
    if count == most then
      kept_to = place - 1
    end
    _, place = read_step(f.lineage, place)
    count = count + 1
  end
  return struct.pack('>I2', math.min(65535, earlier + math.max(0, count - most))) .. made
    .. packed_step(step) .. string.sub(f.lineage, from, kept_to)
end

-- The lineage with one more repetition of the last answer, which was a step.
local function with_retry(f, known)
  local step, place = read_step(f.lineage, 3)
  step.retries = math.min(255, step.retries + 1)
  step.address = unless(step.address or f.address, known)
  return string.sub(f.lineage, 1, 2) .. packed_step(step) .. string.sub(f.lineage, place)
end

-- When a generation was spent, in ms as far as that is known, or nil where the lineage does not say.
local function spent_at(f, generation)
  local place, spent, spent_ms = 3, f.generation - 1, math.floor(f.rotated / 1000) * 1000
  while place <= #f.lineage and spent >= generation do
    local step, after = read_step(f.lineage, place)
    spent_ms = spent_ms - step.seconds * 1000
    if spent == generation then
      return spent_ms
    end
    place, spent = after, spent - 1 - step.skipped
  end
  return nil
end
