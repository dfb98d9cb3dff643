-- For the audit: open reservations that no reaper or no account would ever find again.
-- KEYS: due. ARGV: account prefix, reservation prefix, then ids of reservations that were seen.
local strays = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local held = read(ARGV[2] .. id, {'ac', 'ky', 'how'})
  local known = held.ac and redis.call('EXISTS', ARGV[1] .. held.ac, ARGV[1] .. held.ky) == 2
  if held.how or not known then strays[#strays + 1] = id end
end
for i = 3, #ARGV do
  local held = read(ARGV[2] .. ARGV[i], {'ac', 'how'})
  if held.ac and not held.how and not redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    strays[#strays + 1] = ARGV[i]
  end
end
return strays
