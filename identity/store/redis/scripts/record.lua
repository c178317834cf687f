-- Records an event that goes with no change of state.
--
-- ARGV[5] type   ARGV[6] outcome   ARGV[7] reason   ARGV[8] subject   ARGV[9] family id
--
-- Returns its sequence number, or 'OUTBOX_FULL'.

if outbox_is_full() then
  return 'OUTBOX_FULL'
end
return append(ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], '', event_id, '', circumstances)
