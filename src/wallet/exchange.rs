//! Exchanging: proofs of ours for other proofs of ours, at their mint.
//!
//! Needed when the pool cannot compose a withdrawal, and when a mint retires a keyset. An
//! exchange is `recorded` with its inputs held and its counters taken before the mint is
//! asked; it is `done` when its outputs are in the pool (and its withdrawal has claimed them,
//! in the same commit). Its fee is the wallet's cost and is recorded.
//!
//! Unlike somebody's token its inputs are ours: they go back to the pool only when the mint
//! certainly has not seen the request, because a request still on its way would spend what
//! the pool has meanwhile issued. Otherwise the same request is repeated until its fate is known.
//! Each step asks for this gateway to be the exchange's owner still (`lease.rs`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdk::Amount;
use cdk::nuts::{BlindSignature, Id, KeySetInfo, Proof};

use super::attempt::{self, Fate};
use super::exchange_rows::{
    Exchange, NewExchange, Planned, Terms, fresh_id, plan_for, plan_leaving,
};
use super::issue::{Claim, Issue, claim};
use super::mint::{Mint, MintError, Unit};
use super::redeem::RENEWALS_MAX;
use super::rows::{Attempt, ProofRow, damaged, listed};
use super::{Wallet, WalletError, split};
use crate::store::{Durability, StoreError, Tx, values};

/// The exchanges this process is at: each is worked on by one task at a time, because giving
/// inputs back is only safe while nobody else repeats the request.
#[derive(Clone, Default)]
pub(super) struct Exchanging(Arc<Mutex<HashSet<String>>>);

/// The right to work on one exchange, given back when dropped.
struct Turn {
    exchanging: Exchanging,
    id: String,
}

impl Exchanging {
    fn turn(&self, id: &str) -> Option<Turn> {
        let free = self.ids().insert(id.to_owned());
        free.then(|| Turn { exchanging: self.clone(), id: id.to_owned() })
    }

    // The set is sound after a panic elsewhere: every change to it is a single call.
    fn ids(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.exchanging.ids().remove(&self.id);
    }
}

impl Wallet {
    /// Gets a withdrawal issued by way of the mint. False while the mint does not answer.
    pub(super) async fn exchange_for(&self, issue: &Issue) -> Result<bool, WalletError> {
        let Some(mint) = self.mint_at(&issue.mint) else { return Ok(false) };
        let id = issue.id.clone();
        let find = move |tx: &mut Tx<'_>| Exchange::find_for(tx, &id);
        if let Some(exchange) = self.db().write(Durability::Process, find).await? {
            return self.resolve_exchange(&exchange).await;
        }
        let Some(unit) = Unit::named(&issue.unit) else { return Ok(false) };
        let Some(terms) = self.terms(&mint, unit).await else { return Ok(false) };
        let new = self.new_exchange();
        let _turn = self.0.exchanging.turn(&new.id);
        let wanted = issue.clone();
        let plan = move |tx: &mut Tx<'_>| plan_for(tx, new, &wanted, &terms);
        match self.db().write(Durability::Disk, plan).await? {
            Planned::Claimed => Ok(true),
            Planned::Elsewhere => Ok(false),
            Planned::Short => {
                log::warn!("withdrawal {}: the pool has too little for the mint's fee", issue.id);
                Ok(false)
            }
            Planned::Exchange(exchange) => self.work_on(&mint, *exchange, true).await,
        }
    }

    /// An exchange found in the database: what became of it decides. False while another
    /// gateway is at it.
    pub(crate) async fn resolve_exchange(&self, id: &str) -> Result<bool, WalletError> {
        let Some(_turn) = self.0.exchanging.turn(id) else { return Ok(false) };
        let (wanted, gateway) = (id.to_owned(), self.gateway().to_owned());
        let take = move |tx: &mut Tx<'_>| {
            if Exchange::take(tx, &wanted, &gateway)? {
                return Ok((true, Exchange::find(tx, &wanted)?));
            }
            Ok((!Exchange::is_recorded(tx, &wanted)?, None))
        };
        let (over, exchange) = self.db().write(Durability::Process, take).await?;
        let Some(exchange) = exchange else { return Ok(over) };
        match self.mint_at(&exchange.attempt.mint) {
            Some(mint) => self.work_on(&mint, exchange, false).await,
            None => self.let_go_of_exchange(id).await.map(|()| false),
        }
    }

    /// Brings an exchange of this gateway's to its end, or lets go of it. `fresh`: no such
    /// request can be on its way already.
    async fn work_on(
        &self,
        mint: &Mint,
        exchange: Exchange,
        fresh: bool,
    ) -> Result<bool, WalletError> {
        let id = exchange.id.clone();
        let outcome = match fresh {
            true => self.ask(mint, exchange, true).await,
            false => self.resume(mint, exchange).await,
        };
        if !matches!(outcome, Ok(true)) {
            self.let_go_of_exchange(&id).await?;
        }
        outcome
    }

    /// Undecided, unless it is over: the next to be asked may look again.
    async fn let_go_of_exchange(&self, id: &str) -> Result<(), WalletError> {
        let (id, gateway) = (id.to_owned(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE exchanges SET owner = NULL WHERE id = ?1 AND owner = ?2";
            tx.execute(sql, values![id, gateway])?;
            Ok(())
        };
        Ok(self.db().write(Durability::Process, write).await?)
    }

    fn new_exchange(&self) -> NewExchange {
        NewExchange { id: fresh_id(), owner: self.gateway().to_owned() }
    }

    /// Swaps out what the pool holds of keysets the mint no longer signs with, a bounded
    /// number of proofs at a time. Answers how many.
    pub(crate) async fn leave_inactive_keysets(&self) -> Result<usize, WalletError> {
        let mut left = 0;
        for mint in self.mints() {
            let Some(infos) = mint.keysets_known() else { continue };
            for info in infos.iter().filter(|info| !info.active) {
                let Some(unit) = mint.unit(&info.unit).cloned() else { continue };
                let (url, keyset) = (mint.url.to_string(), info.id);
                if !self.holds_any(&url, keyset).await? {
                    continue;
                }
                let Some(terms) = self.terms(mint, unit).await else { continue };
                let new = self.new_exchange();
                let _turn = self.0.exchanging.turn(&new.id);
                let plan = move |tx: &mut Tx<'_>| plan_leaving(tx, new, &url, keyset, &terms);
                let planned = self.db().write(Durability::Disk, plan).await?;
                if let Some(exchange) = planned {
                    left += exchange.inputs.len();
                    self.work_on(mint, exchange, true).await?;
                }
            }
        }
        Ok(left)
    }

    async fn holds_any(&self, mint: &str, keyset: Id) -> Result<bool, WalletError> {
        let (mint, keyset) = (mint.to_owned(), keyset.to_string());
        let read = move |tx: &mut Tx<'_>| {
            let sql = "SELECT keyset FROM proofs
                       WHERE mint = ?1 AND keyset = ?2 AND holder IS NULL LIMIT 1";
            Ok(tx.row(sql, values![mint, keyset])?.is_some())
        };
        Ok(self.db().write(Durability::Process, read).await?)
    }

    pub(super) async fn terms(&self, mint: &Mint, unit: Unit) -> Option<Terms> {
        let keyset = mint.active(&unit).await.ok()?;
        let infos = mint.keysets(|_| true).await.ok()?;
        let fee = |info: &KeySetInfo| (info.id, info.input_fee_ppk);
        let ppk = Arc::new(infos.iter().map(fee).collect());
        Some(Terms { unit, keyset: keyset.id, largest: attempt::largest_part(&keyset)?, ppk })
    }

    async fn resume(&self, mint: &Mint, mut exchange: Exchange) -> Result<bool, WalletError> {
        match self.look_at(mint, &exchange).await? {
            Fate::Signed(signatures) => self.complete(mint, exchange, &signatures).await,
            Fate::Unspent { outputs_used } => {
                if outputs_used {
                    exchange = self.renew(exchange, None).await?;
                }
                self.ask(mint, exchange, false).await
            }
            Fate::SpentElsewhere => self.lose(exchange).await,
            Fate::Pending | Fate::Unknown(_) => Ok(false),
        }
    }

    /// Asks the mint. `fresh`: no such request can be on its way already.
    async fn ask(
        &self,
        mint: &Mint,
        mut exchange: Exchange,
        fresh: bool,
    ) -> Result<bool, WalletError> {
        let mut renewals_left = RENEWALS_MAX;
        loop {
            let Attempt { keyset, counter_start, outputs, .. } = &exchange.attempt;
            let outputs = self.seed().outputs(*keyset, *counter_start, outputs)?;
            let proofs = self.spendable(&exchange.inputs)?;
            let error = match mint.swap(proofs, attempt::blinded(&outputs)).await {
                Ok(signatures) => return self.complete(mint, exchange, &signatures).await,
                Err(error) => error,
            };
            if matches!(error, MintError::Unreachable | MintError::RateLimited) {
                return self.give_back(exchange, fresh).await;
            }
            match self.look_at(mint, &exchange).await? {
                Fate::Signed(signatures) => {
                    return self.complete(mint, exchange, &signatures).await;
                }
                Fate::Unspent { .. } if error == MintError::OutputsUsed && renewals_left > 0 => {
                    renewals_left -= 1;
                    exchange = self.renew(exchange, None).await?;
                }
                Fate::Unspent { .. } if error == MintError::KeysetInactive && renewals_left > 0 => {
                    renewals_left -= 1;
                    if mint.refresh().await.is_err() {
                        return Ok(false);
                    }
                    let unit =
                        Unit::named(&exchange.attempt.unit).ok_or_else(|| damaged("unit"))?;
                    let Some(terms) = self.terms(mint, unit).await else { return Ok(false) };
                    exchange = self.renew(exchange, Some(terms)).await?;
                }
                Fate::Unspent { .. } => {
                    let answered = !matches!(error, MintError::Ambiguous);
                    return self.give_back(exchange, fresh && answered).await;
                }
                Fate::SpentElsewhere => return self.lose(exchange).await,
                Fate::Pending | Fate::Unknown(_) => return Ok(false),
            }
        }
    }

    pub(super) fn spendable(&self, rows: &[ProofRow]) -> Result<Vec<Proof>, WalletError> {
        let proof = |row: &ProofRow| {
            let secret = self.seed().secret(row.keyset, row.counter)?;
            Ok(Proof::new(Amount::from(row.amount), row.keyset, secret, row.c))
        };
        rows.iter().map(proof).collect()
    }

    async fn complete(
        &self,
        mint: &Mint,
        exchange: Exchange,
        signatures: &[BlindSignature],
    ) -> Result<bool, WalletError> {
        let attempt = &exchange.attempt;
        let Ok(keyset) = mint.keys(attempt.keyset).await else { return Ok(false) };
        let outputs =
            self.seed().outputs(attempt.keyset, attempt.counter_start, &attempt.outputs)?;
        let proofs = match attempt::accept(&outputs, signatures, &keyset) {
            Ok(proofs) => proofs,
            Err(why) => {
                log::error!("exchange {} at {}: {why}", exchange.id, attempt.mint);
                return Ok(false);
            }
        };
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE exchanges SET state = 'done', owner = NULL
                       WHERE id = ?1 AND state = 'recorded' AND owner = ?2";
            if tx.execute(sql, values![&exchange.id, gateway])? == 1 {
                for proof in &proofs {
                    proof.insert(tx, &exchange.attempt, &exchange.id)?;
                }
            }
            match &exchange.withdrawal {
                Some(issue) => Ok(claim(tx, issue)? == Claim::Issued),
                None => Ok(true),
            }
        };
        Ok(self.db().write(Durability::Disk, write).await?)
    }

    /// The mint has not done it. Without a chance that it still will, the inputs return to
    /// the pool; else it stays recorded, to be repeated.
    async fn give_back(&self, exchange: Exchange, certain: bool) -> Result<bool, WalletError> {
        if certain {
            let gateway = self.gateway().to_owned();
            let write = move |tx: &mut Tx<'_>| {
                let sql = "DELETE FROM exchanges
                           WHERE id = ?1 AND state = 'recorded' AND owner = ?2";
                if tx.execute(sql, values![&exchange.id, gateway])? == 1 {
                    let sql = "UPDATE proofs SET holder = NULL WHERE holder = ?1";
                    tx.execute(sql, values![&exchange.id])?;
                }
                Ok(())
            };
            self.db().write(Durability::Disk, write).await?;
        }
        Ok(false)
    }

    /// Our inputs were spent by somebody else with our seed: another process, or a copy of
    /// this database. The proofs are counted as lost, not spent again.
    async fn lose(&self, exchange: Exchange) -> Result<bool, WalletError> {
        log::error!(
            "exchange {}: its inputs were spent elsewhere; is this seed used twice?",
            exchange.id
        );
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE exchanges SET state = 'lost', owner = NULL
                       WHERE id = ?1 AND state = 'recorded' AND owner = ?2";
            tx.execute(sql, values![&exchange.id, gateway])?;
            Ok(())
        };
        self.db().write(Durability::Disk, write).await?;
        Ok(false)
    }

    /// New counters, and with `terms` another keyset, for the same inputs.
    async fn renew(
        &self,
        mut exchange: Exchange,
        terms: Option<Terms>,
    ) -> Result<Exchange, WalletError> {
        if let Some(terms) = terms {
            exchange.attempt.keyset = terms.keyset;
            let each = exchange.attempt.outputs.iter();
            let parts = each.flat_map(|part| split::binary(*part, terms.largest));
            exchange.attempt.outputs = parts.collect();
        }
        let Attempt { keyset, outputs, .. } = &exchange.attempt;
        exchange.attempt.counter_start = self.counters(*keyset, outputs.len()).await?;
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE exchanges SET keyset = ?2, counter_start = ?3, outputs = ?4
                       WHERE id = ?1 AND state = 'recorded' AND owner = ?5";
            let values = values![
                &exchange.id,
                exchange.attempt.keyset.to_string(),
                exchange.attempt.counter_start,
                listed(&exchange.attempt.outputs),
                gateway,
            ];
            match tx.execute(sql, values)? {
                1 => Ok(exchange),
                _ => Err(StoreError(format!("exchange {}: another is at it", exchange.id))),
            }
        };
        Ok(self.db().write(Durability::Disk, write).await?)
    }

    async fn look_at(&self, mint: &Mint, exchange: &Exchange) -> Result<Fate, WalletError> {
        let y = |row: &ProofRow| self.seed().y(row.keyset, row.counter);
        let ys: Result<Vec<_>, _> = exchange.inputs.iter().map(y).collect();
        let attempt = Attempt { ys: ys?, ..exchange.attempt.clone() };
        Ok(attempt::look(mint, self.seed(), &attempt).await)
    }
}
