//! A paid invoice becomes proofs of ours, once, however often it is tried.
//!
//! What the mint's answers mean about one whose signing was perhaps asked for before:
//!
//! | outputs (NUT-09) | quote | conclusion |
//! |---|---|---|
//! | signed | issued | it happened: the proofs are ours |
//! | signed | paid | our counters were used in another life of this database: other outputs |
//! | not signed | paid | it did not happen, and may be asked for again |
//! | not signed | issued | somebody else has it; asked twice, as it may just have happened |

use cdk::nuts::BlindSignature;

use super::attempt;
use super::mint::MintError;
use super::quote::{Later, PaidQuote};
use super::quote_mint::Payment;
use super::quote_rows::{Outputs, QuoteRow};
use super::redeem::RENEWALS_MAX;
use super::rows::{Attempt, RedemptionRow, State, damaged};
use super::{Redemption, Wallet};
use crate::clock::UnixMs;
use crate::crash::{self, Step};
use crate::money::Msat;
use crate::store::{Durability, Tx, values};

/// What became of the signing that was asked for.
enum Fate {
    Signed(Vec<BlindSignature>),
    Unsigned { outputs_used: bool },
    Lost,
    Unknown,
}

impl Wallet {
    /// Makes what was paid ours, once, however often it is tried; the caller deposits it and
    /// says so to [`Self::credited`]. `None` while it is not known whether it is; to be tried
    /// again.
    pub(crate) async fn redeem_quote(&self, paid: PaidQuote) -> Option<Redemption> {
        let id = paid.row.id.clone();
        let redeemed = Settling { wallet: self, paid }.run().await;
        if redeemed.is_err() {
            self.let_go_of_quote(&id).await;
        }
        redeemed.ok()
    }
}

/// A payment on its way from the mint to us.
struct Settling<'w> {
    wallet: &'w Wallet,
    paid: PaidQuote,
}

impl Settling<'_> {
    async fn run(mut self) -> Result<Redemption, Later> {
        let mut fate = match self.paid.fresh {
            true => Fate::Unsigned { outputs_used: false },
            false => self.fate().await,
        };
        for _ in 0..=RENEWALS_MAX {
            match fate {
                Fate::Signed(signatures) => return self.complete(&signatures).await,
                Fate::Unsigned { outputs_used: true } => self.renew().await?,
                Fate::Unsigned { outputs_used: false } => {}
                Fate::Lost => {
                    self.wallet.lose_quote(&self.paid.row).await?;
                    return Err(Later);
                }
                Fate::Unknown => return Err(Later),
            }
            let error = match self.ask().await {
                Ok(signatures) => {
                    crash::point(Step::QuoteSigned);
                    return self.complete(&signatures).await;
                }
                Err(error) => error,
            };
            log::warn!("invoice {}: not signed for yet: {error:?}", self.paid.row.id);
            if matches!(error, MintError::Unreachable | MintError::RateLimited) {
                return Err(Later);
            }
            fate = match (self.fate().await, error) {
                (Fate::Unsigned { .. }, MintError::KeysetInactive) => {
                    self.paid.mint.refresh().await.map_err(|_| Later)?;
                    Fate::Unsigned { outputs_used: true }
                }
                (Fate::Unsigned { .. }, MintError::OutputsUsed) => {
                    Fate::Unsigned { outputs_used: true }
                }
                (Fate::Unsigned { .. }, _) => Fate::Unknown,
                (fate, _) => fate,
            };
        }
        Err(Later)
    }

    async fn ask(&self) -> Result<Vec<BlindSignature>, MintError> {
        let unusable = |_| MintError::Refused("its keyset cannot be used");
        let missing = MintError::Refused("its outputs are missing");
        let row = &self.paid.row;
        let (Some(quote), Some(Outputs { keyset, counter_start, parts })) =
            (&row.quote, &row.outputs)
        else {
            return Err(missing);
        };
        let seed = self.wallet.seed();
        let outputs = seed.outputs(*keyset, *counter_start, parts).map_err(unusable)?;
        let key = seed.quote_key(&row.id).map_err(unusable)?;
        let key = row.locked.then_some(&key);
        self.paid.mint.issue(quote, &attempt::blinded(&outputs), key).await
    }

    /// Looks at the mint; changes nothing.
    async fn fate(&self) -> Fate {
        self.looked().await.unwrap_or_else(|error| {
            log::warn!("invoice {}: {error:?}", self.paid.row.id);
            Fate::Unknown
        })
    }

    async fn looked(&self) -> Result<Fate, MintError> {
        let PaidQuote { row, mint, .. } = &self.paid;
        let (Some(quote), Some(Outputs { keyset, counter_start, parts })) =
            (&row.quote, &row.outputs)
        else {
            return Ok(Fate::Unknown);
        };
        let outputs = self.wallet.seed().outputs(*keyset, *counter_start, parts);
        let outputs = attempt::blinded(&outputs.map_err(|_| MintError::Ambiguous)?);
        let before = mint.restore(outputs.clone()).await?;
        Ok(match (before, mint.payment(quote, row.count).await?) {
            (Some(signatures), Payment::Issued) => Fate::Signed(signatures),
            (signed, Payment::Paid) => Fate::Unsigned { outputs_used: signed.is_some() },
            (None, Payment::Issued) => match mint.restore(outputs).await? {
                Some(signatures) => Fate::Signed(signatures),
                None => Fate::Lost,
            },
            // The mint takes back what it said.
            (_, Payment::Unpaid) => Fate::Unknown,
        })
    }

    /// Other outputs, of the keyset that is active now.
    async fn renew(&mut self) -> Result<(), Later> {
        let PaidQuote { row, mint, .. } = &self.paid;
        let outputs = self.wallet.outputs_for(row, mint).await?;
        let row = QuoteRow { outputs: Some(outputs), ..row.clone() };
        self.paid.row = self.wallet.write_payment(row).await?;
        Ok(())
    }

    /// The mint has signed: stores the proofs as a redemption's, in one commit on disk.
    async fn complete(self, signatures: &[BlindSignature]) -> Result<Redemption, Later> {
        let PaidQuote { row, mint, .. } = self.paid;
        let attempt = row.attempt().ok_or_else(|| damaged("outputs"))?;
        let Attempt { keyset, counter_start, outputs, .. } = &attempt;
        let keys = mint.keys(*keyset).await.map_err(|_| Later)?;
        let outputs = self.wallet.seed().outputs(*keyset, *counter_start, outputs)?;
        let proofs = attempt::accept(&outputs, signatures, &keys).map_err(|why| {
            log::error!("invoice {} at {}: {why}", row.id, attempt.mint);
            Later
        })?;
        let redemption = RedemptionRow {
            id: row.id.clone(),
            account: row.account.clone(),
            // It is open already.
            terms: None,
            attempt,
            amount: row.amount,
            fee: Msat::ZERO,
            state: State::Recorded,
            asked: UnixMs::now(),
        };
        let gateway = self.wallet.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| {
            let sql = "UPDATE quotes SET state = 'redeemed', owner = NULL
                       WHERE id = ?1 AND state = 'paid' AND owner = ?2";
            if tx.execute(sql, values![redemption.id.as_str(), &gateway])? == 0 {
                let found = RedemptionRow::find(tx, &redemption.id)?;
                return Ok(found.filter(RedemptionRow::is_ours));
            }
            let stored =
                redemption.insert(tx, &gateway)? && redemption.keep(tx, &gateway, &proofs)?;
            if stored { Ok(Some(redemption)) } else { Err(damaged("an invoice redeemed twice")) }
        };
        // Nothing: another gateway took over, and is at it or has let go of it.
        let stored = self.wallet.db().write(Durability::Disk, write).await?.ok_or(Later)?;
        crash::point(Step::Redeemed);
        Ok(Redemption { fresh: !stored.is_ours(), ..Redemption::of(&stored) })
    }
}
