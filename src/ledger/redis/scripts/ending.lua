-- Put in front of the scripts that end reservations.

-- The record of a reservation that nobody settled.
local FLOOR = {'', '', 'floor', 0, 0, 0}

-- Ends a reservation at `cost` and answers its receipt; the first end is the only one. Nothing
-- for one that is not known. A receipt is kept for `kept` ms, so that a repetition finds it.
local function finish(held_key, due, id, accounts, how, cost, record, now, kept)
  local held = read(held_key, {'ac', 'ky', 'am', 'tk', 'how', 'sp', 'rt', 'sh', 'av'})
  if not held.ac then return {} end
  if held.how then return {held.how, num(held.sp), num(held.rt), num(held.sh), num(held.av)} end

  local payer, key, amount = accounts .. held.ac, accounts .. held.ky, num(held.am)
  local purse = read(payer, {'av', 're', 'sp', 'sh', 'op'})
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
    'op', math.max(0, num(purse.op) - 1))

  local usage = read(key, {'ko', 'kh', 'kt', 'ks', 'ts', 'tc', 'rq'})
  local since, used = window(usage.ts, usage.tc, now, HOUR)
  used = math.min(MOST, used + num(record[4]) + num(record[6]))
  local requests = num(usage.rq) + (how == 'settled' and 1 or 0)
  redis.call('HSET', key, 'ko', math.max(0, num(usage.ko) - 1),
    'kh', math.max(0, num(usage.kh) - amount), 'kt', math.max(0, num(usage.kt) - num(held.tk)),
    'ks', math.min(MOST, num(usage.ks) + spent), 'ts', since, 'tc', used, 'rq', requests)

  redis.call('HSET', held_key, 'how', how, 'sp', spent, 'rt', returned, 'sh', short,
    'av', available, 'id', record[1], 'mo', record[2], 'us', record[3], 'in', record[4],
    'ci', record[5], 'ou', record[6])
  redis.call('PEXPIRE', held_key, kept)
  redis.call('ZREM', due, id)
  return {how, spent, returned, short, available}
end

