-- Changes a child in the name of its parent. Nothing if the parent has no such child.
-- KEYS: child, the parent's children. ARGV: parent id, child id, 'reset' or 'revoke'.
local child = read(KEYS[1], {'pa', 'ex', 'ks'})
if child.pa ~= ARGV[1] then return {} end
if ARGV[3] == 'revoke' then
  -- Before every clock; nobody can ask for this instant.
  redis.call('HSET', KEYS[1], 'ex', 0)
  redis.call('SREM', KEYS[2], ARGV[2])
else
  if child.ex == '0' then return {} end
  redis.call('HSET', KEYS[1], 'kb', num(child.ks))
end
return account(KEYS[1])
