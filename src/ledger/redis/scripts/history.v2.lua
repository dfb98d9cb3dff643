-- A part of the history of an account, the newest entry first: number and text of each.
-- KEYS: account, its history. ARGV: the number below which to begin or '', how many at most, now
-- or ''.
local newest, most = num(redis.call('HGET', KEYS[1], 'hn')), tonumber(ARGV[2])
local at = ARGV[1] == '' and 0 or math.max(0, newest + 1 - tonumber(ARGV[1]))
local found, some = {}, nil
local since = HISTORY_KEPT > 0 and clock(ARGV[3]) - HISTORY_KEPT or 0
repeat
  some = redis.call('LRANGE', KEYS[2], at, at + most - 1)
  for _, text in ipairs(some) do
    -- A withdrawal that was put back has left its place empty.
    local told = text ~= '' and tonumber(string.match(text, '^%a %S+ (%d+)')) >= since
    if told and #found < 2 * most then
      found[#found + 1] = newest - at
      found[#found + 1] = text
    end
    at = at + 1
  end
until #some == 0 or #found == 2 * most
return found
