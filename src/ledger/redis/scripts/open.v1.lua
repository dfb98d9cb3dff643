-- Opens a key under terms; one that exists keeps the terms it has.
-- KEYS: account. ARGV: account prefix, parent or '', then fields and values of the terms.
if redis.call('HEXISTS', KEYS[1], 'de') == 0 then
  if ARGV[2] ~= '' then
    local parent = read(ARGV[1] .. ARGV[2], {'de', 'pa'})
    if not parent.de or parent.pa then return {} end
    redis.call('HSET', KEYS[1], 'pa', ARGV[2])
  end
  redis.call('HSET', KEYS[1], 'de', 0, unpack(ARGV, 3))
end
return account(KEYS[1])
