-- Gives open reservations their lifetime anew and notes what has accrued. Others stay.
-- KEYS: due. ARGV: reservation prefix, now or '', then id, lifetime in ms and accrued of each.
local now = clock(ARGV[2])
for i = 3, #ARGV, 3 do
  local held = read(ARGV[1] .. ARGV[i], {'ac', 'how'})
  if held.ac and not held.how then
    redis.call('HSET', ARGV[1] .. ARGV[i], 'cr', ARGV[i + 2])
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[i + 1]), ARGV[i])
  end
end
return {}
