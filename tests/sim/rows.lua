-- The rows of the accounts that ARGV names, and every open reservation of their shards. It shares
-- nothing with the ledger's own scripts.
local accounts, open, seen = {}, {}, {}
for _, id in ipairs(ARGV) do
  local tag = 'ng:{' .. string.sub(id, 1, 2) .. '}:'
  local flat = redis.call('HGETALL', tag .. 'a:' .. id)
  if #flat > 0 then
    -- A field with a long name is a deposit.
    local row, deposits, withdrawn = {}, 0, 0
    for i = 1, #flat, 2 do
      if #flat[i] > 2 then deposits = deposits + flat[i + 1] else row[flat[i]] = flat[i + 1] end
    end
    for _, withdrawal in ipairs(redis.call('HVALS', tag .. 'w:' .. id)) do
      local state, amount = string.match(withdrawal, '^(%a+) (%d+)')
      if state ~= 'reverted' then withdrawn = withdrawn + amount end
    end
    accounts[#accounts + 1] = {id, row.de or '0', row.av or '0', row.re or '0', row.sp or '0',
      row.rf or '0', row.sh or '0', row.op or '0', string.format('%.0f', deposits),
      string.format('%.0f', withdrawn)}
  end
  if not seen[tag] then
    seen[tag] = true
    local due = redis.call('ZRANGE', tag .. 'due', 0, -1, 'WITHSCORES')
    for i = 1, #due, 2 do
      local held = redis.call('HMGET', tag .. 'r:' .. due[i], 'ac', 'ky', 'am', 'cr', 'how')
      if held[5] then held[1] = 'ended, and still due' end
      open[#open + 1] = {due[i], held[1] or 'gone', held[2] or 'gone', held[3] or 'gone', due[i + 1],
        held[4] or '0'}
    end
  end
end
return {accounts, open}
