-- Gives open reservations their lifetime anew and notes what has accrued; one without any
-- lifetime ends at that. Others stay.
-- KEYS: due. ARGV: shard, now or '', then id, lifetime in ms and accrued of each.
local now = clock(ARGV[2])
for i = 3, #ARGV, 3 do
  local id, lifetime, accrued = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local key = ARGV[1] .. 'r:' .. id
  local held = read(key, {'ac', 'how'})
  if held.ac and not held.how then
    redis.call('HSET', key, 'cr', accrued)
    redis.call('ZADD', KEYS[1], now + lifetime, id)
    if lifetime == 0 then
      local receipt = finish(ARGV[1], id, 'expired', tonumber(accrued), FLOOR, now)
      if receipt.err then return receipt end
    end
  end
end
return {}
