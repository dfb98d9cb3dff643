-- The answer that is kept for repetitions; nothing if there is none.
-- KEYS: what is remembered. ARGV: now or ''.
if not remembered(KEYS[1], clock(ARGV[1])).fp then return {} end
return {redis.call('HGET', KEYS[1], 'an') or nil}
