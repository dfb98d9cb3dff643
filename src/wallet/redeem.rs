//! Redeeming: somebody's token becomes proofs of ours, once.
//!
//! ```text
//!            recorded ──────────▶ redeemed ──▶ credited
//!             ▲    │  the mint has signed   the ledger has the deposit
//!             │    ▼
//!             lapsed ──▶ (forgotten)
//! ```
//!
//! The row is on disk, with the counters of its outputs, before the mint is asked; it never
//! holds the token. What the mint's answer means:
//!
//! | answer | the row | the client reads |
//! |---|---|---|
//! | signatures | `redeemed` | the deposit |
//! | no connection, or rate limited | `lapsed` | the token is untouched |
//! | anything else | as [`attempt::look`] finds: | |
//! | … it happened | `redeemed` | the deposit |
//! | … unspent | `lapsed` | why the mint refused; the token is untouched |
//! | … unspent, and its keyset inactive or its outputs used | new outputs, asked again | |
//! | … spent by somebody else | forgotten | already spent |
//! | … pending, or no answer | `recorded` | not known; repeating finds out |
//!
//! A repetition of a `recorded` or `lapsed` token first looks, then asks again with the very
//! same outputs, so that it can only be credited once. `lapsed` rows get one late look before
//! they are forgotten: a request given up for unseen may still have been on its way.
//!
//! Whoever is at a row that is not `redeemed` is its owner (`lease.rs`), and every step asks
//! for that. `redeemed` value anybody may deposit, under the row's id; until that is done the
//! owner stays, so that in the background only one does.

use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::BlindSignature;

use super::attempt::{self, Fate};
use super::incoming::{Incoming, Inputs, unfetched};
use super::mint::{Mint, MintError};
use super::rows::{Attempt, RedemptionRow, State, drop_terms};
use super::{Payee, RedeemRefused, Redemption, Wallet, split};
use crate::clock::{Stopwatch, UnixMs};
use crate::crash::{self, Step};
use crate::ids::DepositId;
use crate::money::Msat;
use crate::store::{Durability, StoreError, Tx, values};

/// What is known of a redemption whose token is not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// The proofs are ours: it can be credited.
    Redeemed(Redemption),
    /// The mint had not taken it: the token is still the client's.
    Forgotten,
    Unknown,
}

/// Whose turn it is to work on a redemption.
enum Turn {
    Unrecorded,
    Ours(RedemptionRow),
    /// Another gateway's, which is alive.
    Elsewhere,
    /// The proofs are the wallet's.
    Over(Redemption),
}

/// What one redemption needs while it runs.
struct Run<'w> {
    wallet: &'w Wallet,
    mint: Arc<Mint>,
    row: RedemptionRow,
}

impl Wallet {
    /// Makes the token's value ours; the caller deposits it and says so to [`Self::credited`].
    /// `asked` is called before the first thing that could take the token.
    ///
    /// One call at a time per token in this process (the till's flights), and never dropped
    /// half way. Another gateway that was shown it as well is waited for, within the timeout.
    pub(crate) async fn redeem(
        &self,
        text: &str,
        payee: impl Into<Payee>,
        at_least: Msat,
        asked: &(dyn Fn() + Send + Sync),
    ) -> Result<Redemption, RedeemRefused> {
        let (id, payee) = (DepositId::of_cashu_token(text), payee.into());
        let known = self.redemption_row(&id).await.map_err(unrecorded)?;
        if let Some(row) = &known
            && row.is_ours()
        {
            return Ok(Redemption::of(row));
        }
        let incoming = Incoming::parse(text, self.mints())?;
        let inputs = incoming.inputs().await?;
        let mint = incoming.mint.clone();
        let waiting = Stopwatch::start();
        let mut unrecorded_yet = known.is_none();
        loop {
            let turn = match std::mem::take(&mut unrecorded_yet) {
                true => Turn::Unrecorded,
                false => self.turn(&id).await.map_err(unrecorded)?,
            };
            let outcome = match turn {
                Turn::Over(redemption) => return Ok(redemption),
                Turn::Elsewhere if waiting.elapsed() < self.timeout() => {
                    asked();
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Turn::Elsewhere => return Err(RedeemRefused::Unknown),
                Turn::Ours(row) => {
                    asked();
                    Run { wallet: self, mint, row }.resume(inputs, payee, at_least).await
                }
                Turn::Unrecorded => {
                    let row = self.plan(&id, &payee, at_least, &incoming, &inputs).await?;
                    asked();
                    let Some(row) = self.record(row).await? else { continue };
                    crash::point(Step::RedeemRecorded);
                    Run { wallet: self, mint, row }.ask(inputs).await
                }
            };
            if outcome.is_err() {
                self.let_go(&id).await;
            }
            return outcome;
        }
    }

    /// Whose turn it is to work on this redemption: this gateway's from here on, if nobody
    /// else is at it.
    async fn turn(&self, id: &DepositId) -> Result<Turn, StoreError> {
        let (id, gateway) = (id.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let taken = RedemptionRow::take(tx, &id, &gateway)?;
            Ok(match RedemptionRow::find(tx, &id)? {
                None => Turn::Unrecorded,
                Some(row) if row.is_ours() => Turn::Over(Redemption::of(&row)),
                Some(row) if taken => Turn::Ours(row),
                Some(_) => Turn::Elsewhere,
            })
        };
        self.db().write(Durability::Process, write).await
    }

    /// Undecided: the next to be asked may look again.
    async fn let_go(&self, id: &DepositId) {
        let (wanted, gateway) = (id.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE redemptions SET owner = NULL
                       WHERE id = ?1 AND state IN ('recorded', 'lapsed') AND owner = ?2";
            tx.execute(sql, values![wanted.as_str(), gateway])
        };
        if let Err(error) = self.db().write(Durability::Process, write).await {
            log::warn!("redemption {id}: not let go of: {error}");
        }
    }

    /// Values, fees and outputs of a redemption that is not written down yet.
    async fn plan(
        &self,
        id: &DepositId,
        payee: &Payee,
        at_least: Msat,
        incoming: &Incoming,
        inputs: &Inputs,
    ) -> Result<RedemptionRow, RedeemRefused> {
        let overflow = || RedeemRefused::Invalid("worth more than can be counted".to_owned());
        let worth = |count| incoming.unit.msat(count).ok_or_else(overflow);
        let net = incoming.value.checked_sub(inputs.fee).filter(|net| *net > 0);
        let net = net.ok_or(RedeemRefused::FeesExceedAmount)?;
        let amount = worth(net)?;
        enough(amount, at_least)?;
        let keyset =
            incoming.mint.active(&incoming.unit).await.map_err(|error| unfetched(&error))?;
        let unusable = || RedeemRefused::Failed("the mint's keyset has no usable keys".to_owned());
        let largest = attempt::largest_part(&keyset).ok_or_else(unusable)?;
        let attempt = Attempt {
            mint: incoming.mint.url.to_string(),
            unit: incoming.unit.name.clone(),
            keyset: keyset.id,
            counter_start: 0,
            outputs: split::complete(net, largest),
            ys: inputs.ys.clone(),
        };
        let fee = worth(inputs.fee)?;
        let asked = UnixMs::now();
        let (id, state) = (id.clone(), State::Recorded);
        let Payee { account, terms } = payee.clone();
        Ok(RedemptionRow { id, account, terms, attempt, amount, fee, state, asked })
    }

    /// Nothing if another gateway was faster.
    async fn record(&self, mut row: RedemptionRow) -> Result<Option<RedemptionRow>, RedeemRefused> {
        let Attempt { keyset, outputs, .. } = &row.attempt;
        row.attempt.counter_start =
            self.counters(*keyset, outputs.len()).await.map_err(unrecorded)?;
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| Ok(row.insert(tx, &gateway)?.then_some(row));
        self.db().write(Durability::Disk, write).await.map_err(unrecorded)
    }

    pub(super) async fn redemption_row(
        &self,
        id: &DepositId,
    ) -> Result<Option<RedemptionRow>, StoreError> {
        let id = id.clone();
        let find = move |tx: &mut Tx<'_>| RedemptionRow::find(tx, &id);
        self.db().write(Durability::Process, find).await
    }

    /// Finds out, without the token, what became of a redemption that was not completed.
    pub(crate) async fn resolve_redemption(&self, id: &DepositId) -> Resolved {
        let row = match self.turn(id).await {
            Ok(Turn::Over(redemption)) => return Resolved::Redeemed(redemption),
            Ok(Turn::Ours(row)) => row,
            Ok(Turn::Elsewhere | Turn::Unrecorded) | Err(_) => return Resolved::Unknown,
        };
        let resolved = self.resolve(row).await;
        if resolved == Resolved::Unknown {
            self.let_go(id).await;
        }
        resolved
    }

    async fn resolve(&self, row: RedemptionRow) -> Resolved {
        let Some(mint) = self.mint_at(&row.attempt.mint) else { return Resolved::Unknown };
        let late = UnixMs::now() >= row.asked.plus(LATE);
        let run = Run { wallet: self, mint, row };
        match attempt::look(&run.mint, self.seed(), &run.row.attempt).await {
            Fate::Signed(signatures) => match run.complete(&signatures).await {
                Ok(redemption) => Resolved::Redeemed(redemption),
                Err(_) => Resolved::Unknown,
            },
            Fate::SpentElsewhere => run.forget().await,
            Fate::Unspent { .. } if late && run.row.state == State::Lapsed => run.forget().await,
            Fate::Unspent { .. } => {
                run.lapse().await;
                Resolved::Forgotten
            }
            Fate::Pending | Fate::Unknown(_) => Resolved::Unknown,
        }
    }

    /// The ledger has the deposit.
    pub(crate) async fn credited(&self, id: &DepositId) -> Result<(), StoreError> {
        let id = id.clone();
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE redemptions SET state = 'credited', owner = NULL
                       WHERE id = ?1 AND state = 'redeemed'";
            tx.execute(sql, values![id.as_str()])?;
            drop_terms(tx, &id)
        };
        self.db().write(Durability::Process, write).await
    }
}

impl Run<'_> {
    /// The token of a row that was never completed is shown again.
    async fn resume(
        mut self,
        inputs: Inputs,
        payee: Payee,
        at_least: Msat,
    ) -> Result<Redemption, RedeemRefused> {
        match attempt::look(&self.mint, self.wallet.seed(), &self.row.attempt).await {
            Fate::Signed(signatures) => self.complete(&signatures).await,
            Fate::Unspent { outputs_used } => {
                enough(self.row.amount, at_least)?;
                (self.row.account, self.row.terms) = (payee.account, payee.terms);
                self.renew(outputs_used).await?;
                self.ask(inputs).await
            }
            Fate::SpentElsewhere => {
                self.forget().await;
                Err(RedeemRefused::AlreadySpent)
            }
            Fate::Unknown(MintError::Unreachable) if self.row.state == State::Lapsed => {
                Err(RedeemRefused::MintUnreachable)
            }
            Fate::Pending | Fate::Unknown(_) => Err(RedeemRefused::Unknown),
        }
    }

    /// Asks the mint; again with other outputs if it can no longer sign these.
    async fn ask(mut self, inputs: Inputs) -> Result<Redemption, RedeemRefused> {
        let mut renewals_left = RENEWALS_MAX;
        loop {
            let error = match self.swap(&inputs).await {
                Ok(signatures) => {
                    crash::point(Step::SwapAnswered);
                    return self.complete(&signatures).await;
                }
                Err(error) => error,
            };
            let refused = match error {
                MintError::Unreachable => Some(RedeemRefused::MintUnreachable),
                MintError::RateLimited => Some(RedeemRefused::MintRateLimited),
                _ => None,
            };
            if let Some(refused) = refused {
                self.lapse().await;
                return Err(refused);
            }
            match attempt::look(&self.mint, self.wallet.seed(), &self.row.attempt).await {
                Fate::Signed(signatures) => return self.complete(&signatures).await,
                Fate::Unspent { .. } if error == MintError::KeysetInactive && renewals_left > 0 => {
                    renewals_left -= 1;
                    self.change_keyset().await?;
                }
                Fate::Unspent { .. } if error == MintError::OutputsUsed && renewals_left > 0 => {
                    renewals_left -= 1;
                    self.renew(true).await?;
                }
                Fate::Unspent { .. } => {
                    self.lapse().await;
                    return Err(refusal(&error));
                }
                Fate::SpentElsewhere => {
                    self.forget().await;
                    return Err(RedeemRefused::AlreadySpent);
                }
                Fate::Pending | Fate::Unknown(_) => return Err(RedeemRefused::Unknown),
            }
        }
    }

    async fn swap(&self, inputs: &Inputs) -> Result<Vec<BlindSignature>, MintError> {
        let Attempt { keyset, counter_start, outputs, .. } = &self.row.attempt;
        let outputs = self.wallet.seed().outputs(*keyset, *counter_start, outputs);
        let outputs = outputs.map_err(|_| MintError::Refused("its keyset cannot be used"))?;
        self.mint.swap(inputs.proofs.clone(), attempt::blinded(&outputs)).await
    }

    /// The mint has signed: stores the proofs and says `redeemed`, in one commit on disk.
    async fn complete(self, signatures: &[BlindSignature]) -> Result<Redemption, RedeemRefused> {
        let attempt = &self.row.attempt;
        let keyset = self.mint.keys(attempt.keyset).await.map_err(|_| RedeemRefused::Unknown)?;
        let outputs = self
            .wallet
            .seed()
            .outputs(attempt.keyset, attempt.counter_start, &attempt.outputs)
            .map_err(|_| RedeemRefused::Unknown)?;
        let proofs = attempt::accept(&outputs, signatures, &keyset).map_err(|why| {
            log::error!("redemption {} at {}: {why}", self.row.id, attempt.mint);
            RedeemRefused::Unknown
        })?;
        let (row, gateway) = (self.row.clone(), self.wallet.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            if !row.keep(tx, &gateway, &proofs)? {
                return Ok(RedemptionRow::find(tx, &row.id)?.filter(RedemptionRow::is_ours));
            }
            Ok(Some(row))
        };
        let stored = self.wallet.db().write(Durability::Disk, write).await;
        let stored = stored.map_err(|error| {
            log::error!("redemption {}: not stored, will be restored: {error}", self.row.id);
            RedeemRefused::Unknown
        })?;
        // Nothing: another gateway took over, and is at it or has let go of it.
        let row = stored.ok_or(RedeemRefused::Unknown)?;
        crash::point(Step::Redeemed);
        Ok(Redemption { fresh: !row.is_ours(), ..Redemption::of(&row) })
    }

    async fn renew(&mut self, outputs: bool) -> Result<(), RedeemRefused> {
        let mut row = self.row.clone();
        if outputs {
            let Attempt { keyset, outputs, .. } = &row.attempt;
            let counters = self.wallet.counters(*keyset, outputs.len()).await;
            row.attempt.counter_start = counters.map_err(unrecorded)?;
        }
        row.state = State::Recorded;
        row.asked = UnixMs::now();
        let gateway = self.wallet.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| Ok(row.renew(tx, &gateway)?.then_some(row));
        let renewed = self.wallet.db().write(Durability::Disk, write).await;
        self.row = renewed.map_err(unrecorded)?.ok_or(RedeemRefused::Unknown)?;
        Ok(())
    }

    async fn change_keyset(&mut self) -> Result<(), RedeemRefused> {
        let fetched = async {
            self.mint.refresh().await?;
            let unit = self.mint.units.iter().find(|unit| unit.name == self.row.attempt.unit);
            self.mint.active(unit.ok_or(MintError::Refused("the unit is not accepted"))?).await
        };
        let keyset = match fetched.await {
            Ok(keyset) => keyset,
            Err(error) => {
                self.lapse().await;
                return Err(unfetched(&error));
            }
        };
        let largest = attempt::largest_part(&keyset).unwrap_or(1);
        let value = self.row.attempt.outputs.iter().sum();
        self.row.attempt.keyset = keyset.id;
        self.row.attempt.outputs = split::complete(value, largest);
        self.renew(true).await
    }

    /// The token is the client's, as far as the mint's last word goes.
    async fn lapse(&self) {
        let (id, gateway) = (self.row.id.clone(), self.wallet.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE redemptions
                       SET state = 'lapsed', owner = NULL, next_ms = asked_ms + ?2
                       WHERE id = ?1 AND state IN ('recorded', 'lapsed') AND owner = ?3";
            let late = i64::try_from(LATE.as_millis()).unwrap_or(i64::MAX);
            tx.execute(sql, values![id.as_str(), late, gateway])?;
            Ok(())
        };
        if let Err(error) = self.wallet.db().write(Durability::Process, write).await {
            log::warn!("redemption {}: stays recorded: {error}", self.row.id);
        }
    }

    async fn forget(self) -> Resolved {
        let (id, gateway) = (self.row.id.clone(), self.wallet.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| {
            let sql = "DELETE FROM redemptions
                       WHERE id = ?1 AND state IN ('recorded', 'lapsed') AND owner = ?2";
            if tx.execute(sql, values![id.as_str(), gateway])? == 1 {
                drop_terms(tx, &id)?;
            }
            Ok(())
        };
        if let Err(error) = self.wallet.db().write(Durability::Process, write).await {
            log::warn!("redemption {}: not forgotten: {error}", self.row.id);
        }
        Resolved::Forgotten
    }
}

fn enough(value: Msat, required: Msat) -> Result<(), RedeemRefused> {
    if value < required { Err(RedeemRefused::TooSmall { required, value }) } else { Ok(()) }
}

/// Nothing is asked of the mint before its row is on disk.
fn unrecorded(error: StoreError) -> RedeemRefused {
    log::error!("wallet: {error}");
    RedeemRefused::LedgerUnavailable
}

pub(super) fn refusal(error: &MintError) -> RedeemRefused {
    match error {
        MintError::Refused(why) => RedeemRefused::Failed((*why).to_owned()),
        MintError::KeysetInactive => RedeemRefused::Failed("its keyset is inactive".to_owned()),
        _ => RedeemRefused::Failed("it did not say why".to_owned()),
    }
}

/// How often one call may change its outputs: a rotated keyset needs one, a database restored
/// from an old copy some.
pub(super) const RENEWALS_MAX: u32 = 8;

/// How often the row of something that another gateway is at is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When a request that the mint had not seen is certainly no longer on its way to it.
pub(super) const LATE: Duration = Duration::from_secs(900);
