-- Put in front of the scripts whose effects stand in a history.

-- Writes one entry into the history of an account, whose `hn` its caller has raised to the number
-- of it. Only the newest are kept, and none of them longer after the last than it is told.
local function note(shard, account, text)
  local key = shard .. 'h:' .. account
  if redis.call('LPUSH', key, text) > ENTRIES_MAX then redis.call('LTRIM', key, 0, ENTRIES_MAX - 1) end
  if HISTORY_KEPT > 0 then redis.call('PEXPIRE', key, HISTORY_KEPT) else redis.call('PERSIST', key) end
end

-- What is written of a withdrawal: when it began and how much it took.
local function left(id, since, amount) return string.format('w %s %.0f %.0f', id, since, amount) end

