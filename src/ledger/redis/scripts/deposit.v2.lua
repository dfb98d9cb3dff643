-- Adds value to an account, or to the parent of a child. The deposit is a field of the payer's
-- hash, named by its id, so that a repetition finds it.
-- KEYS: account. ARGV: shard, now or '', deposit id, account id, amount.
local owner = redis.call('HGET', KEYS[1], 'pa') or ARGV[4]
local payer = ARGV[1] .. 'a:' .. owner
if redis.call('HEXISTS', payer, ARGV[3]) == 0 then
  local held, amount = read(payer, {'de', 'av', 'hn'}), tonumber(ARGV[5])
  local deposited = num(held.de) + amount
  if deposited > MOST then return redis.error_reply('NUTGATE more than can be counted') end
  redis.call('HSET', payer, 'de', deposited, 'av', num(held.av) + amount, 'hn', num(held.hn) + 1,
    ARGV[3], amount)
  note(ARGV[1], owner, string.format('d %s %.0f %.0f', ARGV[3], clock(ARGV[2]), amount))
end
return account(payer)
