-- For the audit: an account, all that came in and went out, and what its open reservations add
-- up to, at one instant.
-- KEYS: account, its withdrawals, due. ARGV: reservation prefix, account id.
local found = account(KEYS[1])
if #found == 0 then return {} end
local deposits, all = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  -- The names of an account's own fields have two letters, ids have more.
  if #all[i] > 2 then
    deposits[#deposits + 1] = all[i]
    deposits[#deposits + 1] = all[i + 1]
  end
end
local says = read(KEYS[1], {'re', 'op', 'kh', 'ko'})
local paid, paid_count, through, through_count = 0, 0, 0, 0
if num(says.re) + num(says.op) + num(says.kh) + num(says.ko) > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local held = read(ARGV[1] .. id, {'ac', 'ky', 'am'})
    if held.ac == ARGV[2] then paid, paid_count = paid + num(held.am), paid_count + 1 end
    if held.ky == ARGV[2] then
      through, through_count = through + num(held.am), through_count + 1
    end
  end
end
return {found, deposits, redis.call('HGETALL', KEYS[2]), paid, paid_count, through, through_count}
