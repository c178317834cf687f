-- Denies one access token for as long as it would live.
--
-- KEYS[3]  denied token (string)
-- KEYS[4]  feed of revocations
-- ARGV[5]  family id, '' for a token without a session
-- ARGV[6]  token id   ARGV[7] its subject   ARGV[8] cause
--
-- Returns a verdict; 'OUTBOX_FULL' when even revocations have to wait for the backend.

if outbox_is_overfull() then
  return 'OUTBOX_FULL'
end
local sequence = record('token.revoked', 'success', ARGV[8], ARGV[7], ARGV[5], '')
redis.call('SET', KEYS[3], '1', 'PX', access_tokens_out_ms)
announce(KEYS[4], 'token', ARGV[6], sequence)
return 'REVOKED'
