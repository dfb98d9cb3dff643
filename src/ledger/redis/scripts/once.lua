-- Put in front of the scripts of requests that are made once.

-- What is remembered under a key at `now`; nothing of it is there when nothing is.
local function remembered(key, now)
  local known = read(key, {'fp', 'at', 'fi', 'un', 'ls'})
  if num(known.un) > now then return known end
  return {}
end

-- Remembers an attempt, the only one from now on.
local function remember(key, now, fingerprint, attempt, first)
  redis.call('DEL', key)
  redis.call('HSET', key, 'fp', fingerprint, 'at', attempt, 'fi', first, 'un', now + ONCE_KEPT)
  redis.call('PEXPIRE', key, ONCE_KEPT)
end

