-- Settles or releases one reservation.
-- KEYS: reservation, due. ARGV: account prefix, now or '', reservation id, how, cost, how long
-- its receipt is kept in ms, and the record: request id, model, usage source, input tokens,
-- cached input tokens, output tokens.
local record = {ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]}
return finish(KEYS[1], KEYS[2], ARGV[3], ARGV[1], ARGV[4], tonumber(ARGV[5]), record,
  clock(ARGV[2]), ARGV[6])
