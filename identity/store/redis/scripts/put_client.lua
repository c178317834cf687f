-- Writes a client if the stored document is still the one the new one was made from, and records it.
--
-- KEYS[3]  clients (hash: document by id)   KEYS[4]  revision of the clients (counter)
-- ARGV[5]  client id
-- ARGV[6]  document it replaces, '' for a new client
-- ARGV[7]  new document
-- ARGV[8]  event type
--
-- Returns 1, or 0 when the stored document is another.

if (redis.call('HGET', KEYS[3], ARGV[5]) or '') ~= ARGV[6] then
  return 0
end
record(ARGV[8], 'success', '', '', '', '')
redis.call('HSET', KEYS[3], ARGV[5], ARGV[7])
redis.call('INCR', KEYS[4])
return 1
