-- Ends reservations whose deadline has passed, at what had accrued; the longest overdue first.
-- KEYS: due. ARGV: shard, now or '', how many at most. Answers deadline and receipt of each; one
-- that cannot be ended does not keep the others from it.
local now = clock(ARGV[2])
local due = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
local ended, broken = {}, nil
for i = 1, #due, 2 do
  local id = due[i]
  local accrued = num(redis.call('HGET', ARGV[1] .. 'r:' .. id, 'cr'))
  local receipt = finish(ARGV[1], id, 'expired', accrued, FLOOR, now)
  if receipt.err then
    broken = receipt
  elseif #receipt == 0 then
    redis.call('ZREM', KEYS[1], id)
  else
    ended[#ended + 1] = tonumber(due[i + 1])
    for _, part in ipairs(receipt) do ended[#ended + 1] = part end
  end
end
return #ended == 0 and broken or ended
