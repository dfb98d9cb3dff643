-- Keeps the answer of an attempt that is still the one, if the account has room for it.
-- KEYS: what is remembered, what the account has kept. ARGV: now or '', attempt, bytes at most,
-- the answer.
local now = clock(ARGV[1])
if remembered(KEYS[1], now).at ~= ARGV[2] then return {0} end
if redis.call('HEXISTS', KEYS[1], 'an') == 1 then return {1} end
local kept = read(KEYS[2], {'st', 'by'})
local start, bytes = window(kept.st, kept.by, now, KEPT_WINDOW)
bytes = bytes + #ARGV[4] + ONCE_BYTES
if bytes > tonumber(ARGV[3]) then return {0} end
redis.call('HSET', KEYS[2], 'st', start, 'by', bytes)
redis.call('PEXPIRE', KEYS[2], KEPT_WINDOW)
redis.call('HSET', KEYS[1], 'an', ARGV[4])
return {1}
