-- For the audit: what an account says it holds in reservations, and what its open ones add up
-- to, at one instant.
-- KEYS: account, due. ARGV: reservation prefix, account id.
local says = read(KEYS[1], {'re', 'op', 'kh', 'ko'})
local paid, paid_count, through, through_count = 0, 0, 0, 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local held = read(ARGV[1] .. id, {'ac', 'ky', 'am', 'how'})
  if held.ac == ARGV[2] and not held.how then
    paid, paid_count = paid + num(held.am), paid_count + 1
  end
  if held.ky == ARGV[2] and not held.how then
    through, through_count = through + num(held.am), through_count + 1
  end
end
return {num(says.re), paid, num(says.op), paid_count, num(says.kh), through, num(says.ko),
  through_count}
