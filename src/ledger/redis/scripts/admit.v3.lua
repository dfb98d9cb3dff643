-- Checks the key, whether the request was made before, limits and cap and the payer's balance, and
-- reserves the ceiling. Behind the answer comes where the key stands: of requests and of tokens the
-- limit, what is left of it, and in how many ms its window ends.
-- KEYS: account, reservation, due, and for a request that is to be made once what is remembered of
-- it. ARGV: account prefix, now or '', reservation id, account id, ceiling, tokens, lifetime in ms,
-- and the limits: requests, tokens, concurrent; then fingerprint and reservation prefix.
local known = read(KEYS[2], {'ac', 'how'})
if known.how then return {'ended'} end

local key = read(KEYS[1], {'de', 'av', 're', 'op', 'pa', 'ex', 'ca', 'cr', 'lr', 'lt', 'lc', 'ko',
  'kh', 'kt', 'ks', 'kb', 'kp', 'rs', 'rc', 'ts', 'tc'})
if not key.de then return {'none'} end
local now = clock(ARGV[2])
local ceiling, tokens = tonumber(ARGV[5]), tonumber(ARGV[6])
local start, count = window(key.rs, key.rc, now, MINUTE)
local since, used = window(key.ts, key.tc, now, HOUR)
local requests, most = tonumber(key.lr or ARGV[8]), tonumber(key.lt or ARGV[9])
used = used + num(key.kt)

local function standing(what, first, second)
  local answer = {what, first}
  answer[#answer + 1] = second
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] =
    requests, math.max(0, requests - count), start + MINUTE - now
  answer[n + 4], answer[n + 5], answer[n + 6] =
    most, math.max(0, most - used), since + HOUR - now
  return answer
end

if known.ac then return standing('ok', num(redis.call('HGET', ARGV[1] .. known.ac, 'av'))) end
local payer, owner = KEYS[1], ARGV[4]
local purse = key
if key.pa then
  payer, owner = ARGV[1] .. key.pa, key.pa
  purse = read(payer, {'de', 'av', 're', 'op'})
  if not purse.de then return {'none'} end
end
if key.ex and num(key.ex) <= now then return {'expired'} end

if KEYS[4] then
  local before = remembered(KEYS[4], now)
  if before.ls then return standing('reused') end
  if before.fp then
    local first, met = read(ARGV[12] .. before.at, {'ac', 'how', 'sp'}), nil
    if first.ac and not first.how then
      met = 'flight'
    elseif first.how == 'settled' or num(first.sp) > 0 then
      met = 'served'
    end
    if met then return standing(before.fp == ARGV[11] and met or 'reused') end
  end
end

local concurrent = tonumber(key.lc or ARGV[10])
if num(key.ko) >= concurrent then return standing('concurrent', concurrent, 1000) end
if count >= requests then return standing('requests', requests, start + MINUTE - now) end
if used + tokens > most then return standing('tokens', most, since + HOUR - now) end

local left = left_under_cap(key, now)
if ceiling > left then return standing('capped', left) end
local available = num(purse.av) - ceiling
if available < 0 then
  return standing('insufficient', num(purse.av), num(purse.op) == 0 and 1 or 0)
end

count, used = count + 1, used + tokens
redis.call('HSET', payer, 'av', available, 're', num(purse.re) + ceiling, 'op', num(purse.op) + 1)
redis.call('HSET', KEYS[1], 'ko', num(key.ko) + 1, 'kh', num(key.kh) + ceiling,
  'kt', num(key.kt) + tokens, 'rs', start, 'rc', count)
local current = period(key.cr, now)
if current > num(key.kp) then redis.call('HSET', KEYS[1], 'kp', current, 'kb', num(key.ks)) end
redis.call('HSET', KEYS[2], 'ac', owner, 'ky', ARGV[4], 'am', ceiling, 'tk', tokens)
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[7]), ARGV[3])
if KEYS[4] then remember(KEYS[4], now, ARGV[11], ARGV[3], ARGV[3]) end
return standing('ok', available)
