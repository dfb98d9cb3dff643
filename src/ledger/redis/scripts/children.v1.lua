-- Opens children of a parent, all of them or none; one that exists keeps the terms it has.
-- KEYS: parent, its children. ARGV: account prefix, parent id, how many, their ids, then fields
-- and values of the terms.
local parent, last = read(KEYS[1], {'de', 'pa'}), 3 + tonumber(ARGV[3])
if not parent.de or parent.pa then return {'none'} end
local fresh = {}
for i = 4, last do
  if redis.call('HEXISTS', ARGV[1] .. ARGV[i], 'de') == 0 then fresh[#fresh + 1] = ARGV[i] end
end
local left = math.max(0, CHILDREN_MAX - redis.call('SCARD', KEYS[2]))
if #fresh > left then return {'many', left} end
-- Where this is missing a look at the family needs no script.
if #fresh > 0 then redis.call('HSET', KEYS[1], 'hc', 1) end
for _, id in ipairs(fresh) do
  redis.call('HSET', ARGV[1] .. id, 'de', 0, 'pa', ARGV[2], unpack(ARGV, last + 1))
  redis.call('SADD', KEYS[2], id)
end
return {'ok', account(KEYS[1])}
