-- Put in front of every script, behind what the gateway sets: ACCOUNT_FIELDS, RECEIPTS_KEPT in ms
-- and ENTRIES_MAX and HISTORY_KEPT in ms, 0 for ever. Amounts are whole numbers up to 2^53 - 1, which Lua's numbers hold exactly. A
-- field that is absent is 0.

local MOST = 9007199254740991
local MINUTE, HOUR, DAY = 60000, 3600000, 86400000

-- The server's clock, or a simulation's.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function num(value) return tonumber(value or 0) end

-- The named fields of a hash, as a table by name.
local function read(key, names)
  local values, found = redis.call('HMGET', key, unpack(names)), {}
  for i = 1, #names do found[names[i]] = values[i] end
  return found
end

-- A window's start and count as they are at `now`.
local function window(start, count, now, length)
  start, count = num(start), num(count)
  if count > 0 and start <= now and now < start + length then return start, count end
  return now, 0
end

-- The number of the calendar period of a cap, UTC; months are counted from March, so that the
-- leap day is a year's last.
local function period(reset, now)
  local days = math.floor(now / DAY)
  if reset == 'daily' then return days end
  if reset == 'weekly' then return math.floor((days + 3) / 7) end
  if reset ~= 'monthly' then return 0 end
  days = days + 719468
  local era, day = math.floor(days / 146097), days % 146097
  local leap = math.floor(day / 1460) + math.floor(day / 146096)
  local year = math.floor((day + math.floor(day / 36524) - leap) / 365)
  local before = year * 365 + math.floor(year / 4) - math.floor(year / 100)
  return (era * 400 + year) * 12 + math.floor(((day - before) * 5 + 2) / 153)
end

-- What a key's cap leaves at `now`; everything when it has none.
local function left_under_cap(key, now)
  if not key.ca then return MOST end
  local before = num(key.kb)
  if period(key.cr, now) > num(key.kp) then before = num(key.ks) end
  return math.max(0, num(key.ca) - (num(key.ks) - before + num(key.kh)))
end

-- Every field of an account in the order in which the caller reads them; nothing if there is
-- no such account.
local function account(key)
  local fields = redis.call('HMGET', key, unpack(ACCOUNT_FIELDS))
  if not fields[1] then return {} end
  return fields
end

