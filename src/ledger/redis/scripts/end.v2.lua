-- Settles or releases one reservation.
-- KEYS: reservation. ARGV: shard, now or '', reservation id, how, cost, and the record: input
-- tokens, output tokens, and the lines of which the ledger reads nothing.
local record = {ARGV[6], ARGV[7], ARGV[8]}
return finish(ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5]), record, clock(ARGV[2]))
