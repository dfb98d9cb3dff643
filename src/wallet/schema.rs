//! The wallet's part of the database's schema.
//!
//! A row never holds a secret: a proof is its keyset, counter, amount and signature, and
//! worth nothing without the seed file. `holder` says who a proof was set aside for: a
//! withdrawal or an exchange with the mint; without one it is in the pool. `owner` says which
//! gateway is at an operation (`lease.rs`). A quote's `id` is a hash of the invoice's id, `quote`
//! is its name at the mint, `terms` are the till's, for the account that it opens; a redemption's
//! are in `openings` until it is credited. A foreign mint's payment of a quote is in
//! `foreign_melts` under the quote's id; `change` is what it gave back, once we know. A payment's
//! `booked` is what its withdrawal took, in units, and `returned` what has come back of that.
//! `handed_out` has the withdrawals whose token somebody was there to be given; `unclaimed` the
//! accounts whose change nobody was there to be given, as they were then (`unclaimed.rs`).

/// Written for SQLite, safe to run again.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS wallet_seed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    fingerprint TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS gateways (
    id TEXT PRIMARY KEY,
    lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    keyset TEXT PRIMARY KEY,
    next INTEGER NOT NULL CHECK (next BETWEEN 0 AND 2147483647)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS redemptions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    keyset TEXT NOT NULL,
    counter_start INTEGER NOT NULL CHECK (counter_start >= 0),
    outputs TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    fee_msat INTEGER NOT NULL CHECK (fee_msat >= 0),
    ys BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('recorded', 'lapsed', 'redeemed', 'credited')),
    owner TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    asked_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS redemptions_due ON redemptions (next_ms) WHERE state <> 'credited';
CREATE INDEX IF NOT EXISTS redemptions_of ON redemptions (account, seq);
CREATE TABLE IF NOT EXISTS openings (
    id TEXT PRIMARY KEY,
    terms TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quotes (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    purpose TEXT NOT NULL CHECK (purpose IN ('create', 'topup')),
    terms TEXT,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    quote TEXT,
    payment_hash TEXT,
    locked INTEGER NOT NULL DEFAULT 0,
    keyset TEXT,
    counter_start INTEGER,
    outputs TEXT,
    state TEXT NOT NULL CHECK (state IN ('recorded', 'offered', 'paid', 'redeemed', 'lost')),
    owner TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    paid_ms INTEGER,
    checked_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS quotes_due ON quotes (next_ms)
    WHERE state IN ('recorded', 'offered', 'paid');
CREATE INDEX IF NOT EXISTS quotes_open ON quotes (expires_ms)
    WHERE state IN ('recorded', 'offered');
CREATE UNIQUE INDEX IF NOT EXISTS quotes_named ON quotes (mint, quote) WHERE quote IS NOT NULL;
CREATE TABLE IF NOT EXISTS foreign_melts (
    id TEXT PRIMARY KEY,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    quote TEXT NOT NULL,
    value INTEGER NOT NULL CHECK (value > 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    keyset TEXT NOT NULL,
    counter_start INTEGER NOT NULL CHECK (counter_start >= 0),
    blanks INTEGER NOT NULL CHECK (blanks >= 0),
    expires_ms INTEGER NOT NULL,
    change TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS proofs (
    keyset TEXT NOT NULL,
    counter INTEGER NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    c BLOB NOT NULL CHECK (length(c) = 33),
    source TEXT NOT NULL,
    holder TEXT,
    PRIMARY KEY (keyset, counter)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS proofs_pool ON proofs (mint, unit, amount, keyset, counter)
    WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS proofs_pool_keyset ON proofs (keyset) WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS proofs_held ON proofs (holder) WHERE holder IS NOT NULL;
CREATE INDEX IF NOT EXISTS proofs_source ON proofs (source);
CREATE TABLE IF NOT EXISTS outgoing (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    state TEXT NOT NULL CHECK (state IN ('issuing', 'issued', 'claimed')),
    checked_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS outgoing_unclaimed ON outgoing (checked_ms) WHERE state = 'issued';
CREATE INDEX IF NOT EXISTS outgoing_of ON outgoing (account, seq) WHERE state = 'issued';
CREATE TABLE IF NOT EXISTS handed_out (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unclaimed (
    account TEXT PRIMARY KEY,
    entries INTEGER NOT NULL CHECK (entries >= 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    since_ms INTEGER NOT NULL,
    swept_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unclaimed_due ON unclaimed (since_ms) WHERE swept_ms IS NULL;
CREATE TABLE IF NOT EXISTS payments (
    id TEXT PRIMARY KEY,
    withdrawal TEXT NOT NULL,
    account TEXT NOT NULL,
    recipient TEXT NOT NULL,
    everything INTEGER NOT NULL,
    deposited_msat INTEGER NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    amount_msat INTEGER NOT NULL CHECK (amount_msat > 0),
    booked INTEGER NOT NULL CHECK (booked >= amount),
    booked_msat INTEGER NOT NULL CHECK (booked_msat >= amount_msat),
    fee_reserve INTEGER NOT NULL CHECK (fee_reserve >= 0),
    quote TEXT NOT NULL,
    payment_hash TEXT NOT NULL,
    keyset TEXT NOT NULL,
    counter_start INTEGER NOT NULL CHECK (counter_start >= 0),
    blanks INTEGER NOT NULL CHECK (blanks >= 0),
    deposit TEXT NOT NULL UNIQUE,
    returned_msat INTEGER NOT NULL DEFAULT 0 CHECK (returned_msat >= 0),
    preimage TEXT,
    state TEXT NOT NULL CHECK (state IN ('planned', 'paying', 'paid', 'failed')),
    owner TEXT,
    expires_ms INTEGER NOT NULL,
    asked_ms INTEGER,
    heard INTEGER NOT NULL DEFAULT 0,
    ended_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS payments_for ON payments (withdrawal);
CREATE TABLE IF NOT EXISTS exchanges (
    id TEXT PRIMARY KEY,
    withdrawal TEXT,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    keyset TEXT NOT NULL,
    counter_start INTEGER NOT NULL CHECK (counter_start >= 0),
    outputs TEXT NOT NULL,
    fee INTEGER NOT NULL CHECK (fee >= 0),
    fee_msat INTEGER NOT NULL CHECK (fee_msat >= 0),
    state TEXT NOT NULL CHECK (state IN ('recorded', 'done', 'lost')),
    owner TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    next_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS exchanges_due ON exchanges (next_ms) WHERE state = 'recorded';
CREATE UNIQUE INDEX IF NOT EXISTS exchanges_for ON exchanges (withdrawal)
    WHERE state = 'recorded' AND withdrawal IS NOT NULL;
";
