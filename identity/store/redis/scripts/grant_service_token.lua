-- Records that a client gets an access token of its own. No state is kept of it.
--
-- KEYS[3]  cut-off of the client
-- ARGV[5]  client id
--
-- Returns {verdict, now ms, sequence}.

if outbox_is_full() then
  return {'OUTBOX_FULL', now_ms}
end
if redis.call('HGET', KEYS[3], 'disabled') == '1' then
  record('request.refused', 'refused', 'CLIENT_DISABLED', ARGV[5], '', '')
  return {'CLIENT_DISABLED', now_ms}
end
return {'STARTED', now_ms, record('service_token.issued', 'success', '', ARGV[5], '', '')}
