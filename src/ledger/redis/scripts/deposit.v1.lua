-- Adds value to an account, or to the parent of a child. The deposit is a field of the payer's
-- hash, named by its id, so that a repetition finds it.
-- KEYS: account. ARGV: account prefix, deposit id, amount.
local parent = redis.call('HGET', KEYS[1], 'pa')
local payer = parent and ARGV[1] .. parent or KEYS[1]
if redis.call('HEXISTS', payer, ARGV[2]) == 0 then
  local held, amount = read(payer, {'de', 'av'}), tonumber(ARGV[3])
  local deposited = num(held.de) + amount
  if deposited > MOST then return redis.error_reply('NUTGATE more than can be counted') end
  redis.call('HSET', payer, 'de', deposited, 'av', num(held.av) + amount, ARGV[2], amount)
end
return account(payer)
