//! Taking an amount out of the pool, in one statement, whatever the number of proofs held.
//!
//! Largest first: of the proofs that are no larger than what is still wanted the largest, again
//! and again, until nothing is wanted. All are set aside, or, when they cannot make it up, none.
//! Each step is one look into an index; [`super::split`] argues that the steps find a composition
//! whenever there is one.
//!
//! Where many gateways claim at once they must not wait for each other over the largest proof
//! in the pool, so each walks past what another is taking. PostgreSQL locks rows in no recursive
//! query, therefore the walk is a function there, and a recursive query on SQLite.

use crate::store::{Dialect, StoreError, Tx, values};

/// Creates what [`claim`] calls on PostgreSQL. Its name changes with its meaning: gateways of
/// two versions work on one database while a fleet is updated.
pub(super) fn create(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    match tx.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => tx.create(FUNCTION),
    }
}

/// Whether so many units were set aside for `holder`.
pub(super) fn claim(
    tx: &mut Tx<'_>,
    mint: &str,
    unit: &str,
    count: u64,
    holder: &str,
) -> Result<bool, StoreError> {
    let values = values![mint, unit, count.cast_signed(), holder, CLAIMED_MAX];
    match tx.dialect() {
        Dialect::Sqlite => Ok(tx.execute(CLAIM, values)? > 0),
        Dialect::Postgres => match tx.row("SELECT nutgate_claim_1(?1, ?2, ?3, ?4, ?5)", values)? {
            Some(row) => row.get(0),
            None => Ok(false),
        },
    }
}

/// The walk's place in the index is (amount, keyset, counter); '~' is after every keyset's id.
/// After a proof it goes on at the next one of that amount, or where what is still wanted begins.
const CLAIM: &str = "
WITH RECURSIVE taken (proofs, wanted, amount, keyset, counter) AS (
    SELECT 0, ?3, ?3, '~', 0
    UNION ALL
    SELECT taken.proofs + 1, taken.wanted - found.amount, found.amount, found.keyset, found.counter
    FROM taken JOIN proofs AS found ON (found.keyset, found.counter) = (
        SELECT keyset, counter FROM proofs AS pool
        WHERE pool.mint = ?1 AND pool.unit = ?2 AND pool.holder IS NULL
            AND (pool.amount, pool.keyset, pool.counter) < (
                MIN(taken.amount, taken.wanted),
                CASE WHEN taken.amount <= taken.wanted THEN taken.keyset ELSE '~' END,
                taken.counter)
        ORDER BY pool.amount DESC, pool.keyset DESC, pool.counter DESC LIMIT 1)
    WHERE taken.wanted > 0 AND taken.proofs < ?5
)
UPDATE proofs SET holder = ?4 FROM taken
WHERE EXISTS (SELECT 1 FROM taken WHERE wanted = 0)
    AND proofs.keyset = taken.keyset AND proofs.counter = taken.counter";

/// Scanning the pool would take time in proportion to it, also when the planner, with
/// statistics of an emptier day, thinks otherwise. A join could come to that as well.
const FUNCTION: &str = "
CREATE OR REPLACE FUNCTION nutgate_claim_1(
    of_mint text, of_unit text, amount_wanted bigint, for_holder text, proofs_max bigint
) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $claim$
DECLARE
    wanted bigint := amount_wanted;
    denomination bigint := 1::bigint << 52;
    taken_keysets text[] := '{}';
    taken_counters bigint[] := '{}';
    proof record;
BEGIN
    WHILE wanted > 0 AND denomination > 0 LOOP
        IF denomination <= wanted THEN
            FOR proof IN
                SELECT keyset, counter FROM proofs
                WHERE mint = of_mint AND unit = of_unit AND amount = denomination
                    AND holder IS NULL
                LIMIT LEAST(wanted / denomination, proofs_max - cardinality(taken_keysets))
                FOR UPDATE SKIP LOCKED
            LOOP
                taken_keysets := taken_keysets || proof.keyset;
                taken_counters := taken_counters || proof.counter;
                wanted := wanted - denomination;
            END LOOP;
        END IF;
        denomination := denomination / 2;
    END LOOP;
    IF wanted > 0 OR cardinality(taken_keysets) = 0 THEN
        RETURN false;
    END IF;
    FOR nth IN 1 .. cardinality(taken_keysets) LOOP
        UPDATE proofs SET holder = for_holder
        WHERE keyset = taken_keysets[nth] AND counter = taken_counters[nth];
    END LOOP;
    RETURN true;
END
$claim$";

/// Proofs in one token; a pool of nothing but small ones is exchanged. More than the largest
/// redemption's own outputs, so that what an account brought it can always take.
const CLAIMED_MAX: i64 = 200;

#[cfg(test)]
mod tests;
