-- Books value out of an account. A repeated id answers the withdrawal that it named first,
-- unless that was reverted.
-- KEYS: account, its withdrawals, begun. ARGV: now or '', withdrawal id, account id, 'exactly' or
-- 'everything', the amount or the size of the unit, unit, mint, shard.
local held = read(KEYS[1], {'de', 'av', 'rf', 'wd', 'op', 'pa', 'hn'})
local known = redis.call('HGET', KEYS[2], ARGV[2])
if known and string.sub(known, 1, 8) ~= 'reverted' then return {'ok', known} end
if not held.de then return {'none'} end
if held.pa then return {'child'} end
local available, amount = num(held.av), tonumber(ARGV[5])
if ARGV[4] == 'everything' then
  if num(held.op) > 0 then return {'busy', num(held.op)} end
  amount = available - available % amount
end
if amount == 0 then return {'small', available} end
if amount > available then return {'insufficient', available} end
redis.call('HSET', KEYS[1], 'av', available - amount, 'rf', num(held.rf) + amount,
  'wd', num(held.wd) + 1, 'hn', num(held.hn) + 1)
local row = string.format('begun %.0f %s %s', amount, ARGV[6], ARGV[7])
redis.call('HSET', KEYS[2], ARGV[2], row)
local now = clock(ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[3] .. ' ' .. ARGV[2])
note(ARGV[8], ARGV[3], left(ARGV[2], now, amount))
return {'ok', row}
