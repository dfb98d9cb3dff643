-- An account, its parent if it is a child, and its children: id and fields of each.
-- KEYS: account, its children. ARGV: account prefix.
local parent = redis.call('HGET', KEYS[1], 'pa')
local found = {account(KEYS[1]), parent and account(ARGV[1] .. parent) or {}}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  found[#found + 1] = id
  found[#found + 1] = account(ARGV[1] .. id)
end
return found
