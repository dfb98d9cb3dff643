//! Asking a mint to pay, and what its answers mean.
//!
//! | quote (NUT-05) | inputs (NUT-07) | conclusion |
//! |---|---|---|
//! | paid | | it happened: what the mint signed of the change is ours |
//! | pending | | the mint is at it: wait, whatever else it says |
//! | unpaid | unspent | it did not happen, or failed, and may be asked for again |
//! | unpaid | pending | the mint is at it |
//! | unpaid | spent | a contradiction: nothing is concluded, and the log says so |
//! | not known any more | spent | it happened |
//!
//! *Unpaid* ends a payment only where no request can be on its way: when the first one was answered
//! or never sent, and no other was made; or when the first was sent so long ago that it has either
//! arrived or never will ([`ON_ITS_WAY_MAX`]), and the mint refuses another. Until then the same
//! is asked again.

use std::time::Duration;

use cdk::nuts::BlindSignature;

use super::attempt;
use super::melt_mint::Melting;
use super::mint::{Mint, MintError, Spending};
use super::payment_rows::PaymentRow;
use super::redeem::LOOK_EVERY;
use super::rows::ProofRow;
use super::{Wallet, WalletError};
use crate::clock::{Stopwatch, UnixMs};
use crate::crash::{self, Step};
use crate::store::{Durability, Tx};

/// What became of the request to pay.
enum Fate {
    Paid {
        change: Option<Vec<BlindSignature>>,
        preimage: Option<String>,
    },
    /// Not now: perhaps not yet, perhaps not any more.
    Unpaid,
    Unknown,
}

impl Wallet {
    /// A payment that the mint was perhaps asked for already.
    pub(super) async fn resume_payment(
        &self,
        mint: &Mint,
        row: PaymentRow,
    ) -> Result<(), WalletError> {
        let inputs = self.payment_inputs(&row).await?;
        match self.fate_of(mint, &row, &inputs).await {
            Fate::Paid { change, preimage } => {
                self.complete_payment(mint, row, change, preimage).await
            }
            Fate::Unpaid if row.heard => self.fail_payment(&row, "the mint has not paid").await,
            Fate::Unpaid => self.ask_to_pay(mint, row, &inputs, false).await,
            Fate::Unknown => Ok(()),
        }
    }

    /// Asks the mint. `fresh`: no such request can be on its way already.
    pub(super) async fn ask_to_pay(
        &self,
        mint: &Mint,
        row: PaymentRow,
        inputs: &[ProofRow],
        fresh: bool,
    ) -> Result<(), WalletError> {
        let blanks = attempt::blinded(&self.blank_outputs(&row)?);
        let proofs = self.spendable(inputs)?;
        let answer = match late(&row) {
            // What the mint says to this one ends the payment: it may take its time.
            true => mint.melt(&row.quote, proofs, blanks).await,
            false => mint.melt_at_once(&row.quote, proofs, blanks).await,
        };
        crash::point(Step::PaymentAnswered);
        let answered = match answer {
            Ok(Melting::Paid { change, preimage }) => {
                return self.complete_payment(mint, row, change, preimage).await;
            }
            Ok(Melting::Pending | Melting::Unpaid) => true,
            Err(error) => {
                let (id, url) = (&row.plan.id, &row.plan.mint);
                log::warn!("payment {id} at {url}: not paid yet: {error:?}");
                if matches!(error, MintError::Unreachable | MintError::RateLimited) {
                    return match fresh {
                        true => self.fail_payment(&row, "the mint could not be asked").await,
                        false => Ok(()),
                    };
                }
                error != MintError::Ambiguous
            }
        };
        if fresh && answered {
            self.heard(&row).await?;
        }
        let over = answered && (fresh || late(&row));
        self.follow(mint, row, inputs, over).await
    }

    /// Asks for a while how the payment stands. `over`: no request to pay is on its way, so that
    /// an unpaid one has failed.
    async fn follow(
        &self,
        mint: &Mint,
        row: PaymentRow,
        inputs: &[ProofRow],
        over: bool,
    ) -> Result<(), WalletError> {
        let following = Stopwatch::start();
        loop {
            match self.fate_of(mint, &row, inputs).await {
                Fate::Paid { change, preimage } => {
                    return self.complete_payment(mint, row, change, preimage).await;
                }
                Fate::Unpaid if over => {
                    return self.fail_payment(&row, "the mint has not paid").await;
                }
                Fate::Unpaid => return Ok(()),
                Fate::Unknown if following.elapsed() >= FOLLOWED => return Ok(()),
                Fate::Unknown => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Notes that the only request to pay that there was is not on its way any more.
    async fn heard(&self, row: &PaymentRow) -> Result<(), WalletError> {
        let (row, gateway) = (row.clone(), self.gateway().to_owned());
        let write = move |tx: &mut Tx<'_>| row.hear(tx, &gateway);
        Ok(self.db().write(Durability::Process, write).await?)
    }

    /// Looks at the mint; changes nothing.
    async fn fate_of(&self, mint: &Mint, row: &PaymentRow, inputs: &[ProofRow]) -> Fate {
        self.looked_at_payment(mint, row, inputs).await.unwrap_or_else(|error| {
            log::warn!("payment {} at {}: {error:?}", row.plan.id, row.plan.mint);
            Fate::Unknown
        })
    }

    async fn looked_at_payment(
        &self,
        mint: &Mint,
        row: &PaymentRow,
        inputs: &[ProofRow],
    ) -> Result<Fate, MintError> {
        let known = match mint.melting(&row.quote).await {
            Ok(Melting::Paid { change, preimage }) => return Ok(Fate::Paid { change, preimage }),
            Ok(Melting::Pending) => return Ok(Fate::Unknown),
            Ok(Melting::Unpaid) => true,
            Err(MintError::Refused(_)) => false,
            Err(error) => return Err(error),
        };
        let y = |input: &ProofRow| self.seed().y(input.keyset, input.counter);
        let ys: Result<Vec<_>, _> = inputs.iter().map(y).collect();
        let spending = mint.spending(ys.map_err(|_| MintError::Ambiguous)?).await?;
        Ok(match (known, spending) {
            (_, Spending::Unspent) => Fate::Unpaid,
            (false, Spending::Spent) => Fate::Paid { change: None, preimage: None },
            (true, Spending::Spent) => {
                log::error!(
                    "payment {}: unpaid, and its proofs are spent; is this seed used twice?",
                    row.plan.id
                );
                Fate::Unknown
            }
            (_, Spending::Pending) => Fate::Unknown,
        })
    }

    /// The mint has paid: stores its change as a redemption's, in one commit on disk.
    async fn complete_payment(
        &self,
        mint: &Mint,
        row: PaymentRow,
        change: Option<Vec<BlindSignature>>,
        preimage: Option<String>,
    ) -> Result<(), WalletError> {
        let blanks = self.blank_outputs(&row)?;
        let Ok(keys) = mint.keys(row.keyset).await else { return Ok(()) };
        let signatures = match change {
            Some(signatures) => signatures,
            None => match mint.restore_change(attempt::blinded(&blanks)).await {
                Ok(signatures) => signatures,
                Err(_) => return Ok(()),
            },
        };
        let proofs = match attempt::accept_change(&blanks, &signatures, &keys) {
            Ok(proofs) => proofs,
            Err(why) => {
                log::error!("payment {}: its change: {why}", row.plan.id);
                return Ok(());
            }
        };
        let gateway = self.gateway().to_owned();
        let write = move |tx: &mut Tx<'_>| row.pay(tx, &gateway, &proofs, preimage);
        if self.db().write(Durability::Disk, write).await? {
            crash::point(Step::PaymentEnded);
        }
        Ok(())
    }

    fn blank_outputs(&self, row: &PaymentRow) -> Result<Vec<super::seed::Output>, WalletError> {
        self.seed().outputs(row.keyset, row.counter_start, &vec![0; row.blanks])
    }
}

fn late(row: &PaymentRow) -> bool {
    row.asked.is_some_and(|asked| asked.plus(ON_ITS_WAY_MAX) <= UnixMs::now())
}

/// Most payments are made or have failed within this; the others are looked at now and then.
const FOLLOWED: Duration = Duration::from_secs(20);

/// After this long a request to pay has arrived, or never will: longer than any connection of
/// ours waits for its answer.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(900);
