-- Put in front of the scripts that end reservations.

-- What an end changes of an account as it pays, and as its key was shown.
local ENDING = {'av', 're', 'sp', 'sh', 'op', 'hn', 'ko', 'kh', 'kt', 'ks', 'ts', 'tc', 'rq'}

-- The record of a reservation that nobody settled.
local FLOOR = {'0', '0', '\n\nfloor\n\n'}

-- Ends a reservation at `cost` and answers its receipt; the first end is the only one. Nothing
-- for one that is not known. A receipt is kept so that a repetition finds it, and only what a
-- repetition needs of it: the rest is in the history of the payer, and of the child that asked.
local function finish(shard, id, how, cost, record, now)
  local held_key = shard .. 'r:' .. id
  local held = read(held_key, {'ac', 'ky', 'am', 'tk', 'how', 'sp', 'rt', 'sh', 'av'})
  if not held.ac then return {} end
  if held.how then return {held.how, num(held.sp), num(held.rt), num(held.sh), num(held.av)} end

  local payer, key, amount = shard .. 'a:' .. held.ac, shard .. 'a:' .. held.ky, num(held.am)
  local is_child, purse = held.ky ~= held.ac, read(payer, ENDING)
  if num(purse.re) < amount then
    return redis.error_reply('NUTGATE the account does not hold its reservation')
  end
  local from_reserve = math.min(cost, amount)
  local beyond = math.min(cost - from_reserve, num(purse.av))
  local returned = amount - from_reserve
  local spent = from_reserve + beyond
  local short = cost - spent
  local available = num(purse.av) - beyond + returned
  redis.call('HSET', payer, 'av', available, 're', num(purse.re) - amount,
    'sp', num(purse.sp) + spent, 'sh', math.min(MOST, num(purse.sh) + short),
    'op', math.max(0, num(purse.op) - 1), 'hn', num(purse.hn) + 1)

  local usage = is_child and read(key, ENDING) or purse
  local since, used = window(usage.ts, usage.tc, now, HOUR)
  used = math.min(MOST, used + num(record[1]) + num(record[2]))
  local requests = num(usage.rq) + (how == 'settled' and 1 or 0)
  redis.call('HSET', key, 'ko', math.max(0, num(usage.ko) - 1),
    'kh', math.max(0, num(usage.kh) - amount), 'kt', math.max(0, num(usage.kt) - num(held.tk)),
    'ks', math.min(MOST, num(usage.ks) + spent), 'ts', since, 'tc', used, 'rq', requests)

  redis.call('HSET', held_key, 'how', how, 'sp', spent, 'rt', returned, 'sh', short,
    'av', available)
  redis.call('HDEL', held_key, 'ky', 'am', 'tk', 'cr')
  redis.call('PEXPIRE', held_key, RECEIPTS_KEPT)
  redis.call('ZREM', shard .. 'due', id)
  local text = string.format('r %s %.0f %s %.0f %.0f %.0f %s %s\n', id, now, how, amount, spent,
    short, record[1], record[2]) .. record[3]
  note(shard, held.ac, text)
  if is_child then
    redis.call('HSET', key, 'hn', num(usage.hn) + 1)
    note(shard, held.ky, text)
  end
  return {how, spent, returned, short, available}
end

