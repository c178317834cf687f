-- Denies one access token for as long as it would live.
--
-- KEYS[3]  denied token (string)
-- ARGV[5]  family id, '' for a token without a session
-- ARGV[6]  milliseconds until it has expired everywhere
--
-- Returns a verdict; 'OUTBOX_FULL' when even revocations have to wait for the backend.

if outbox_is_overfull() then
  return 'OUTBOX_FULL'
end
record('token.revoked', 'success', '', '', ARGV[5], '')
redis.call('SET', KEYS[3], '1', 'PX', ARGV[6])
return 'REVOKED'
