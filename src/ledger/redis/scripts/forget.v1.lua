-- Frees the key of an attempt that came to nothing.
-- KEYS: what is remembered. ARGV: attempt.
local known = read(KEYS[1], {'at', 'an'})
if known.at == ARGV[1] and not known.an then redis.call('DEL', KEYS[1]) end
return {}
