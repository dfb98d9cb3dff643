-- Raises an open reservation to an amount, if the key's cap and the payer's balance allow.
-- KEYS: reservation. ARGV: account prefix, now or '', amount.
local held = read(KEYS[1], {'ac', 'ky', 'am', 'how'})
if not held.ac or held.how then return {'ended'} end
local payer, key = ARGV[1] .. held.ac, ARGV[1] .. held.ky
local more = math.max(0, tonumber(ARGV[3]) - num(held.am))
local owner = read(key, {'de', 'ca', 'cr', 'kh', 'ks', 'kb', 'kp'})
local purse = read(payer, {'av', 're', 'op'})
if not owner.de then return {'none'} end
local left = left_under_cap(owner, clock(ARGV[2]))
if more > left then return {'capped', left} end
local available = num(purse.av) - more
if available < 0 then return {'insufficient', num(purse.av), num(purse.op) == 0 and 1 or 0} end
if more > 0 then
  redis.call('HSET', payer, 'av', available, 're', num(purse.re) + more)
  redis.call('HSET', key, 'kh', num(owner.kh) + more)
  redis.call('HSET', KEYS[1], 'am', num(held.am) + more)
end
return {'ok', available}
