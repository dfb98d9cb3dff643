//! Bugs put into the ledger on purpose. A simulation that does not see them proves nothing.

mod embedded;

pub(crate) use embedded::IN_EMBEDDED;

/// A bug in the scripts of the Redis ledger.
pub(crate) struct Bug {
    /// What goes wrong, for whom.
    pub(crate) what: &'static str,
    pub(crate) file: &'static str,
    /// What is found, and what stands there instead.
    pub(crate) edits: &'static [(&'static str, &'static str)],
}

impl Bug {
    /// The text of a script with the bug in it. A bug that no longer fits must not count.
    pub(crate) fn plant(&self, file: &str, source: &str) -> String {
        let mut source = source.to_owned();
        for (find, instead) in self.edits.iter().filter(|_| file == self.file) {
            assert!(source.contains(find), "{file} has no `{find}`, where {}", self.what);
            source = source.replace(find, instead);
        }
        source
    }
}

pub(crate) const IN_REDIS: &[Bug] = &[
    Bug {
        what: "opening a key again empties it",
        file: "open.v2.lua",
        edits: &[("if redis.call('HEXISTS', KEYS[1], 'de') == 0 then", "if true then")],
    },
    Bug {
        what: "a child opens children",
        file: "children.v1.lua",
        edits: &[("if not parent.de or parent.pa then", "if not parent.de then")],
    },
    Bug {
        what: "a child opened again has other terms",
        file: "children.v1.lua",
        edits: &[("if redis.call('HEXISTS', ARGV[1] .. ARGV[i], 'de') == 0 then", "if true then")],
    },
    Bug {
        what: "a parent does not know its children",
        file: "children.v1.lua",
        edits: &[("redis.call('SADD', KEYS[2], id)", "")],
    },
    Bug {
        what: "a parent is taken for one that has no children",
        file: "children.v1.lua",
        edits: &[("if #fresh > 0 then redis.call('HSET', KEYS[1], 'hc', 1) end", "")],
    },
    Bug {
        what: "one child of several is opened",
        file: "children.v1.lua",
        edits: &[("for _, id in ipairs(fresh) do", "for _, id in ipairs({fresh[1]}) do")],
    },
    Bug {
        what: "anybody changes a child",
        file: "amend.v1.lua",
        edits: &[("if child.pa ~= ARGV[1] then", "if not child.pa then")],
    },
    Bug {
        what: "a revoked child is still listed",
        file: "amend.v1.lua",
        edits: &[("redis.call('SREM', KEYS[2], ARGV[2])", "")],
    },
    Bug {
        what: "a revoked child goes on paying",
        file: "amend.v1.lua",
        edits: &[("redis.call('HSET', KEYS[1], 'ex', 0)", "")],
    },
    Bug {
        what: "a cap that is reset forgets nothing",
        file: "amend.v1.lua",
        edits: &[("redis.call('HSET', KEYS[1], 'kb', num(child.ks))", "")],
    },
    Bug {
        what: "a child sees its siblings",
        file: "family.v1.lua",
        edits: &[(
            "redis.call('SMEMBERS', KEYS[2])",
            "redis.call('SMEMBERS', parent and string.gsub(ARGV[1], ':a:', ':c:') .. parent or KEYS[2])",
        )],
    },
    Bug {
        what: "a repeated deposit is credited again",
        file: "deposit.v2.lua",
        edits: &[("if redis.call('HEXISTS', payer, ARGV[3]) == 0 then", "if true then")],
    },
    Bug {
        what: "a deposit is credited and not written down",
        file: "deposit.v2.lua",
        edits: &[(",\n    ARGV[3], amount)", ")")],
    },
    Bug {
        what: "a child has money of its own",
        file: "deposit.v2.lua",
        edits: &[("redis.call('HGET', KEYS[1], 'pa') or ARGV[4]", "ARGV[4]")],
    },
    Bug {
        what: "a balance grows beyond what can be counted",
        file: "deposit.v2.lua",
        edits: &[("if deposited > MOST then", "if false then")],
    },
    Bug {
        what: "a repeated admission reserves again",
        file: "admit.v3.lua",
        edits: &[("if known.ac then return", "if false then return")],
    },
    Bug {
        what: "a repeated admission revives what has ended",
        file: "admit.v3.lua",
        edits: &[("if known.how then return {'ended'} end", "")],
    },
    Bug {
        what: "more is reserved than there is",
        file: "admit.v3.lua",
        edits: &[("if available < 0 then", "if available < -500 then")],
    },
    Bug {
        what: "an expired key goes on paying",
        file: "admit.v3.lua",
        edits: &[("num(key.ex) <= now", "num(key.ex) + MINUTE <= now")],
    },
    Bug {
        what: "one request too many at once",
        file: "admit.v3.lua",
        edits: &[("num(key.ko) >= concurrent", "num(key.ko) > concurrent")],
    },
    Bug {
        what: "one request too many in a minute",
        file: "admit.v3.lua",
        edits: &[("count >= requests", "count > requests")],
    },
    Bug {
        what: "tokens of open requests do not count against the hour",
        file: "admit.v3.lua",
        edits: &[("used + tokens > most", "used - num(key.kt) + tokens > most")],
    },
    Bug {
        what: "a client is told that it may make one request more than it may",
        file: "admit.v3.lua",
        edits: &[("requests, math.max(0, requests - count)", "requests, requests - count + 1")],
    },
    Bug {
        what: "a client is told that tokens are left which its open requests hold",
        file: "admit.v3.lua",
        edits: &[("math.max(0, most - used)", "math.max(0, most - used + num(key.kt))")],
    },
    Bug {
        what: "fewer than no tokens are left",
        file: "admit.v3.lua",
        edits: &[("math.max(0, most - used)", "most - used")],
    },
    Bug {
        what: "a client is told that a minute begins with each request",
        file: "admit.v3.lua",
        edits: &[("requests - count), start + MINUTE - now", "requests - count), MINUTE")],
    },
    Bug {
        what: "a reservation has no deadline",
        file: "admit.v3.lua",
        edits: &[("redis.call('ZADD', KEYS[3], now + tonumber(ARGV[7]), ARGV[3])", "")],
    },
    Bug {
        what: "a cap starts its period again when the clock goes back",
        file: "admit.v3.lua",
        edits: &[("if current > num(key.kp) then", "if current ~= num(key.kp) then")],
    },
    Bug {
        what: "what is reserved does not count against a cap",
        file: "common.lua",
        edits: &[("num(key.ks) - before + num(key.kh)", "num(key.ks) - before")],
    },
    Bug {
        what: "a cap is forgotten when the clock goes back",
        file: "common.lua",
        edits: &[("if period(key.cr, now) > num(key.kp)", "if period(key.cr, now) ~= num(key.kp)")],
    },
    Bug {
        what: "a window that began in the future never ends",
        file: "common.lua",
        edits: &[("start <= now and now < start", "now < start")],
    },
    Bug {
        what: "what has ended is extended",
        file: "extend.v1.lua",
        edits: &[("if not held.ac or held.how then", "if not held.ac then")],
    },
    Bug {
        what: "an extension passes the cap",
        file: "extend.v1.lua",
        edits: &[("if more > left then return {'capped', left} end", "")],
    },
    Bug {
        what: "an extension is reserved and belongs to no reservation",
        file: "extend.v1.lua",
        edits: &[("redis.call('HSET', KEYS[1], 'am', num(held.am) + more)", "")],
    },
    Bug {
        what: "a repeated extension is reserved again",
        file: "extend.v1.lua",
        edits: &[("math.max(0, tonumber(ARGV[3]) - num(held.am))", "tonumber(ARGV[3])")],
    },
    Bug {
        what: "what has ended is renewed",
        file: "renew.v2.lua",
        edits: &[("if held.ac and not held.how then", "if held.ac then")],
    },
    Bug {
        what: "a renewal does not note what has accrued",
        file: "renew.v2.lua",
        edits: &[("redis.call('HSET', key, 'cr', accrued)", "")],
    },
    Bug {
        what: "what was given up stays reserved",
        file: "renew.v2.lua",
        edits: &[("if lifetime == 0 then", "if false then")],
    },
    Bug {
        what: "what was given up is free",
        file: "renew.v2.lua",
        edits: &[("tonumber(accrued), FLOOR", "0, FLOOR")],
    },
    Bug {
        what: "a repeated end charges again",
        file: "ending.lua",
        edits: &[("if held.how then return", "if false then return")],
    },
    Bug {
        what: "a cost above the reservation takes more than there is",
        file: "ending.lua",
        edits: &[("math.min(cost - from_reserve, num(purse.av))", "cost - from_reserve")],
    },
    Bug {
        what: "a cost above the reservation is taken and not booked",
        file: "ending.lua",
        edits: &[("num(purse.sp) + spent", "num(purse.sp) + from_reserve")],
    },
    Bug {
        what: "a shortfall is not told",
        file: "ending.lua",
        edits: &[("local short = cost - spent", "local short = 0")],
    },
    Bug {
        what: "what was reserved and not spent is kept",
        file: "ending.lua",
        edits: &[("local returned = amount - from_reserve", "local returned = 0")],
    },
    Bug {
        what: "an ended reservation stays in the index of deadlines",
        file: "ending.lua",
        edits: &[("redis.call('ZREM', shard .. 'due', id)", "")],
    },
    Bug {
        what: "an ended request goes on counting as open",
        file: "ending.lua",
        edits: &[("math.max(0, num(usage.ko) - 1)", "num(usage.ko)")],
    },
    Bug {
        what: "output does not count against the hour",
        file: "ending.lua",
        edits: &[("used + num(record[1]) + num(record[2])", "used + num(record[1])")],
    },
    Bug {
        what: "a parent's limits count what its children used",
        file: "ending.lua",
        edits: &[("is_child and read(key, ENDING) or purse", "purse")],
    },
    Bug {
        what: "a reservation expires under a stream that lives",
        file: "expire.v2.lua",
        edits: &[("local now = clock(ARGV[2])", "local now = clock(ARGV[2]) + 5000")],
    },
    Bug {
        what: "what expires is charged in full",
        file: "expire.v2.lua",
        edits: &[("'HGET', ARGV[1] .. 'r:' .. id, 'cr'", "'HGET', ARGV[1] .. 'r:' .. id, 'am'")],
    },
    Bug {
        what: "what expires is free",
        file: "expire.v2.lua",
        edits: &[("num(redis.call('HGET', ARGV[1] .. 'r:' .. id, 'cr'))", "0")],
    },
    Bug {
        what: "a repeated withdrawal pays twice",
        file: "withdraw.v2.lua",
        edits: &[("if known and string.sub(known, 1, 8) ~= 'reverted' then", "if false then")],
    },
    Bug {
        what: "more is withdrawn than there is",
        file: "withdraw.v2.lua",
        edits: &[("if amount > available then return {'insufficient', available} end", "")],
    },
    Bug {
        what: "everything leaves under an open request",
        file: "withdraw.v2.lua",
        edits: &[("if num(held.op) > 0 then return {'busy', num(held.op)} end", "")],
    },
    Bug {
        what: "a large withdrawal is written down in short",
        file: "withdraw.v2.lua",
        edits: &[("'begun %.0f %s %s'", "'begun %.12g %s %s'")],
    },
    Bug {
        what: "a committed withdrawal is put back too",
        file: "undraw.v2.lua",
        edits: &[
            ("string.sub(row, 1, 6) ~= 'begun '", "string.sub(row, 1, 8) == 'reverted'"),
            ("'^begun (%d+)'", "' (%d+)'"),
        ],
    },
    Bug {
        what: "a reverted withdrawal is not put back",
        file: "undraw.v2.lua",
        edits: &[("'av', num(held.av) + amount", "'av', num(held.av)")],
    },
    Bug {
        what: "an ended withdrawal is resumed for ever",
        file: "undraw.v2.lua",
        edits: &[("redis.call('ZREM', KEYS[3], member)", "")],
    },
    Bug {
        what: "a deposit is not in the history",
        file: "deposit.v2.lua",
        edits: &[("note(ARGV[1], owner,", "local _ = (")],
    },
    Bug {
        what: "a child's request is not in its parent's history",
        file: "ending.lua",
        edits: &[("note(shard, held.ac, text)", "")],
    },
    Bug {
        what: "a child does not see its own requests",
        file: "ending.lua",
        edits: &[("note(shard, held.ky, text)", "")],
    },
    Bug {
        what: "a request is in a history twice",
        file: "ending.lua",
        edits: &[("if is_child then", "if true then")],
    },
    Bug {
        what: "a history tells what was put back as gone",
        file: "undraw.v2.lua",
        edits: &[("if at then redis.call('LSET', KEYS[4], at, '') end", "")],
    },
    Bug {
        what: "a page begins with the last entry of the one before",
        file: "history.v2.lua",
        edits: &[("newest + 1 - tonumber(ARGV[1])", "newest - tonumber(ARGV[1])")],
    },
    Bug {
        what: "a page is short by what was put back",
        file: "history.v2.lua",
        edits: &[("until #some == 0 or #found == 2 * most", "until true")],
    },
    Bug {
        what: "a request that is repeated at once is made twice",
        file: "admit.v3.lua",
        edits: &[("if first.ac and not first.how then", "if false then")],
    },
    Bug {
        what: "a request that was served is made again",
        file: "admit.v3.lua",
        edits: &[("elseif first.how == 'settled' or num(first.sp) > 0 then", "elseif false then")],
    },
    Bug {
        what: "a request that expired and was charged is made again",
        file: "admit.v3.lua",
        edits: &[("first.how == 'settled' or num(first.sp) > 0", "first.how == 'settled'")],
    },
    Bug {
        what: "a request that came to nothing can never be made again",
        file: "admit.v3.lua",
        edits: &[("first.how == 'settled' or num(first.sp) > 0", "first.how")],
    },
    Bug {
        what: "another request gets the answer of the first",
        file: "admit.v3.lua",
        edits: &[("before.fp == ARGV[11] and met or 'reused'", "met")],
    },
    Bug {
        what: "nothing is remembered of a request",
        file: "admit.v3.lua",
        edits: &[("if KEYS[4] then remember(", "if false then remember(")],
    },
    Bug {
        what: "a request keeps the answer of the one that it took the place of",
        file: "once.lua",
        edits: &[("redis.call('DEL', key)", "")],
    },
    Bug {
        what: "a key is remembered for ever",
        file: "once.lua",
        edits: &[("if num(known.un) > now then", "if known.un then")],
    },
    Bug {
        what: "a call is executed by two at once",
        file: "claim.v1.lua",
        edits: &[("if num(known.ls) > now and", "if false and")],
    },
    Bug {
        what: "a call is executed again although it has its answer",
        file: "claim.v1.lua",
        edits: &[("if answer then", "if false then")],
    },
    Bug {
        what: "a call that is executed again makes something else",
        file: "claim.v1.lua",
        edits: &[("first = known.fi", "first = ARGV[3]")],
    },
    Bug {
        what: "an account has more claimed than it may",
        file: "claim.v1.lua",
        edits: &[("if bytes + ONCE_BYTES > tonumber(ARGV[5])", "if bytes > tonumber(ARGV[5])")],
    },
    Bug {
        what: "an account has more kept than it may",
        file: "keep.v1.lua",
        edits: &[("bytes + #ARGV[4] + ONCE_BYTES", "bytes + ONCE_BYTES")],
    },
    Bug {
        what: "one that was taken for dead answers for its successor",
        file: "keep.v1.lua",
        edits: &[(
            "if remembered(KEYS[1], now).at ~= ARGV[2] then",
            "if not remembered(KEYS[1], now).at then",
        )],
    },
    Bug {
        what: "an answer that was kept is replaced",
        file: "keep.v1.lua",
        edits: &[("if redis.call('HEXISTS', KEYS[1], 'an') == 1 then return {1} end", "")],
    },
    Bug {
        what: "one that was taken for dead frees the key of its successor",
        file: "forget.v1.lua",
        edits: &[("if known.at == ARGV[1] and not known.an then", "if not known.an then")],
    },
    Bug {
        what: "an answer that was kept is forgotten",
        file: "forget.v1.lua",
        edits: &[("known.at == ARGV[1] and not known.an", "known.at == ARGV[1]")],
    },
];
