-- Denies one access token for as long as it would live.
--
-- KEYS[3]  denied token (string)
-- ARGV[5]  family id, '' for a token without a session
-- ARGV[6]  milliseconds until it has expired everywhere
--
-- Returns a verdict.

record('token.revoked', 'success', '', '', ARGV[5], '')
redis.call('SET', KEYS[3], '1', 'PX', ARGV[6])
return 'REVOKED'
