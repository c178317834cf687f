-- Writes the keyring if the stored one is its predecessor, and records what was done to it.
--
-- KEYS[3]  keyring (hash: revision, document)
-- ARGV[5]  revision of the new keyring; that of the stored one is one less, or there is none before revision 1
-- ARGV[6]  the new document
-- ARGV[7]  of each event that is recorded, in a row: id (hex), type, circumstances (JSON)
--
-- Returns 1, or 0 when the stored keyring is another. A full outbox holds up no change of keys.

local revision = tonumber(ARGV[5])
if tonumber(redis.call('HGET', KEYS[3], 'revision') or 0) ~= revision - 1 then
  return 0
end
redis.call('HSET', KEYS[3], 'revision', text(revision), 'document', ARGV[6])
for at = 7, #ARGV, 3 do
  append(ARGV[at + 1], 'success', '', '', '', '', ARGV[at], '', ARGV[at + 2])
end
return 1
