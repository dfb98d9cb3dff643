-- Opens a key under terms; one that exists keeps the terms it has.
-- KEYS: account. ARGV: fields and values of the terms.
if redis.call('HEXISTS', KEYS[1], 'de') == 0 then
  redis.call('HSET', KEYS[1], 'de', 0, unpack(ARGV))
end
return account(KEYS[1])
