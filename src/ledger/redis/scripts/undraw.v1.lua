-- Ends a begun withdrawal: committed, its value has left; reverted, it is put back whole.
-- KEYS: account, its withdrawals, begun. ARGV: withdrawal id, account id, the state it ends in.
local row = redis.call('HGET', KEYS[2], ARGV[1])
if not row or string.sub(row, 1, 6) ~= 'begun ' then return {} end
if ARGV[3] == 'reverted' then
  local amount = tonumber(string.match(row, '^begun (%d+)'))
  local held = read(KEYS[1], {'av', 'rf', 'wd'})
  if num(held.rf) < amount then
    return redis.error_reply('NUTGATE the account did not refund this')
  end
  redis.call('HSET', KEYS[1], 'av', num(held.av) + amount, 'rf', num(held.rf) - amount,
    'wd', math.max(0, num(held.wd) - 1))
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3] .. string.sub(row, 6))
redis.call('ZREM', KEYS[3], ARGV[2] .. ' ' .. ARGV[1])
return {}
