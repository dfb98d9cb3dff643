//! The claim in SQL against the rule in plain code, and what it touches.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::task::JoinSet;

use super::*;
use crate::store::place::{Over, Place, over_both, statement};
use crate::store::{Db, Durability, Store};
use crate::wallet::SCHEMA;
use crate::wallet::split::complete;
use crate::wallet::split::tests::{Pool, pool_of, withdraw};

struct Bench {
    _dir: tempfile::TempDir,
    place: Place,
    store: Store,
    db: Db,
    keyset: u32,
}

impl Bench {
    async fn over(over: Over) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wallet.db"), "").unwrap();
        let place = Place::fresh(over).await;
        let db = place.open(&store);
        let make = |tx: &mut Tx<'_>| tx.create(SCHEMA).and_then(|()| create(tx));
        db.write(Durability::Process, make).await.unwrap();
        Self { _dir: dir, place, store, db, keyset: 0 }
    }

    /// Exactly these proofs are in the pool.
    async fn fill(&mut self, parts: &[u64]) {
        self.keyset += 1;
        let (parts, keyset) = (parts.to_vec(), format!("{:016x}", self.keyset));
        let fill = move |tx: &mut Tx<'_>| {
            tx.execute("UPDATE proofs SET holder = 'earlier' WHERE holder IS NULL", values![])?;
            let sql = "INSERT INTO proofs (keyset, counter, mint, unit, amount, c, source)
                       VALUES (?1, ?2, 'm', 'sat', ?3, ?4, 's')";
            for (counter, part) in (0_i64..).zip(parts) {
                tx.execute(sql, values![&keyset, counter, part.cast_signed(), vec![2; 33]])?;
            }
            Ok(())
        };
        self.db.write(Durability::Process, fill).await.unwrap();
    }

    async fn claim(&self, count: u64, holder: &'static str) -> bool {
        let work = move |tx: &mut Tx<'_>| claim(tx, "m", "sat", count, holder);
        self.db.write(Durability::Disk, work).await.unwrap()
    }

    /// What is in the pool, or set aside for somebody.
    async fn held(&self, holder: Option<&'static str>) -> Pool {
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT amount FROM proofs WHERE COALESCE(holder, '') = ?1";
            let rows = tx.rows(sql, values![holder.unwrap_or_default()])?;
            rows.iter().map(|row| row.get(0)).collect::<Result<Vec<u64>, _>>()
        };
        pool_of(&self.db.write(Durability::Process, read).await.unwrap())
    }
}

fn worth(pool: &Pool) -> u64 {
    pool.iter().map(|(denomination, count)| denomination * count).sum()
}

async fn a_claim_takes_what_the_rule_takes_or_nothing(over: Over) {
    let mut bench = Bench::over(over).await;
    let powers = prop::collection::vec((0_u32..7).prop_map(|bit| 1_u64 << bit), 0..24);
    let mut runner = TestRunner::deterministic();
    for _ in 0..60 {
        let parts = powers.new_tree(&mut runner).unwrap().current();
        let most = parts.iter().sum::<u64>() + 2;
        let amount = (1..=most).new_tree(&mut runner).unwrap().current();
        bench.fill(&parts).await;
        let mut left = pool_of(&parts);
        let taken = withdraw(&mut left, amount);
        left.retain(|_, count| *count > 0);
        assert_eq!(bench.claim(amount, "x").await, taken, "{amount} of {parts:?}");
        assert_eq!(bench.held(None).await, left, "{amount} of {parts:?}");
        let aside = worth(&bench.held(Some("x")).await);
        assert_eq!(aside, if taken { amount } else { 0 });
        statement(&bench.db, "DELETE FROM proofs", values![]).await;
    }
}

async fn claims_at_once_share_no_proof_and_none_is_refused(over: Over) {
    const HOLDERS: [&str; 16] =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
    let mut bench = Bench::over(over).await;
    let each = |index: usize| 700 + 13 * index as u64;
    let parts: Vec<u64> =
        (0..HOLDERS.len()).flat_map(|index| complete(each(index), 1 << 20)).collect();
    bench.fill(&parts).await;
    // As many gateways, where there can be many.
    let gateways: Vec<Db> = HOLDERS.iter().map(|_| bench.place.open(&bench.store)).collect();
    let mut claims = JoinSet::new();
    for (index, (holder, gateway)) in HOLDERS.into_iter().zip(gateways).enumerate() {
        claims.spawn(async move {
            let work = move |tx: &mut Tx<'_>| claim(tx, "m", "sat", each(index), holder);
            gateway.write(Durability::Disk, work).await.unwrap()
        });
    }
    assert!(claims.join_all().await.into_iter().all(|taken| taken));
    assert_eq!(worth(&bench.held(None).await), 0);
    for (index, holder) in HOLDERS.into_iter().enumerate() {
        assert_eq!(worth(&bench.held(Some(holder)).await), each(index));
    }
}

/// Rows that one claim of 1001, which is seven proofs, looks at.
async fn rows_touched(bench: &Bench) -> u64 {
    let work = |tx: &mut Tx<'_>| {
        let before = rows_looked_at(tx)?;
        assert!(claim(tx, "m", "sat", 1001, "x")?);
        Ok(rows_looked_at(tx)? - before)
    };
    bench.db.write(Durability::Disk, work).await.unwrap()
}

/// So far: by this session of PostgreSQL; on SQLite steps of its machine, of which every row is
/// some, by the claims since the last time.
fn rows_looked_at(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    match tx.dialect() {
        Dialect::Sqlite => tx.steps_of(CLAIM),
        Dialect::Postgres => {
            let sql = "SELECT CAST(seq_tup_read + idx_tup_fetch AS BIGINT)
                       FROM pg_stat_xact_user_tables WHERE relname = 'proofs'";
            tx.row(sql, values![])?.unwrap().get(0)
        }
    }
}

async fn what_a_claim_touches_does_not_depend_on_how_many_proofs_are_held(over: Over) {
    let mut touched = Vec::new();
    for of_each in [3, 400] {
        let mut bench = Bench::over(over).await;
        let parts: Vec<u64> = (0..10).flat_map(|bit| vec![1_u64 << bit; of_each]).collect();
        bench.fill(&parts).await;
        touched.push(rows_touched(&bench).await);
        // Nor on what the planner knows of them.
        statement(&bench.db, "ANALYZE proofs", values![]).await;
        touched.push(rows_touched(&bench).await);
    }
    let (least, most) = (touched.iter().min().unwrap(), touched.iter().max().unwrap());
    assert!(*least > 0 && *most <= least + least / 2, "of 30 and of 4,000: {touched:?}");
}

over_both! {
    a_claim_takes_what_the_rule_takes_or_nothing
    claims_at_once_share_no_proof_and_none_is_refused
    what_a_claim_touches_does_not_depend_on_how_many_proofs_are_held
}
