-- Claims a call that the gateway answers itself, unless it is executed or has its answer. Said again
-- by the same attempt it has the lease anew.
-- KEYS: what is remembered, what the account has kept. ARGV: now or '', fingerprint, attempt,
-- lease in ms, bytes at most.
local now = clock(ARGV[1])
local known, first = remembered(KEYS[1], now), ARGV[3]
if known.fp then
  if not known.ls or known.fp ~= ARGV[2] then return {'reused'} end
  local answer = redis.call('HGET', KEYS[1], 'an')
  if answer then return {'answered', answer} end
  if num(known.ls) > now and known.at ~= ARGV[3] then return {'flight'} end
  first = known.fi
else
  local kept = read(KEYS[2], {'st', 'by'})
  local start, bytes = window(kept.st, kept.by, now, KEPT_WINDOW)
  if bytes + ONCE_BYTES > tonumber(ARGV[5]) then return {'much', start + KEPT_WINDOW - now} end
end
remember(KEYS[1], now, ARGV[2], ARGV[3], first)
redis.call('HSET', KEYS[1], 'ls', now + tonumber(ARGV[4]))
return {'ours', first}
