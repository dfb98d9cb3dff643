-- Ends a begun withdrawal: committed, its value has left; reverted, it is put back whole, and its
-- place in the history is empty.
-- KEYS: account, its withdrawals, begun, history. ARGV: withdrawal id, account id, the state it
-- ends in.
local row = redis.call('HGET', KEYS[2], ARGV[1])
if not row or string.sub(row, 1, 6) ~= 'begun ' then return {} end
local member = ARGV[2] .. ' ' .. ARGV[1]
if ARGV[3] == 'reverted' then
  local amount = tonumber(string.match(row, '^begun (%d+)'))
  local held = read(KEYS[1], {'av', 'rf', 'wd'})
  if num(held.rf) < amount then
    return redis.error_reply('NUTGATE the account did not refund this')
  end
  redis.call('HSET', KEYS[1], 'av', num(held.av) + amount, 'rf', num(held.rf) - amount,
    'wd', math.max(0, num(held.wd) - 1))
  local since = num(redis.call('ZSCORE', KEYS[3], member))
  local at = redis.call('LPOS', KEYS[4], left(ARGV[1], since, amount))
  if at then redis.call('LSET', KEYS[4], at, '') end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3] .. string.sub(row, 6))
redis.call('ZREM', KEYS[3], member)
return {}
