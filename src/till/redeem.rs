//! Redeem, then deposit: a token becomes balance once, however often it is shown.
//!
//! The terms of a key that a token opens are written down with its redemption, and the account is
//! opened under them once the value is ours: a token that is worth nothing leaves no account, and
//! a crash no account without its terms.

use super::flights::{Boarding, Flight};
use super::terms::{kept, restored};
use super::{CashuToken, Landed, RedeemRefused, Redeemed, Till};
use crate::crash::{self, Step};
use crate::ids::{AccountId, DepositId};
use crate::ledger::{Deposit, Ledger, Opening};
use crate::money::Msat;
use crate::wallet::{Payee, Redemption};

impl<L: Ledger> Till<L> {
    /// Makes this token the balance of `into`, once; a repetition answers the same. Nothing is
    /// taken unless its value after fees is at least `at_least`.
    ///
    /// Runs to its end on the wallet's own runtime, also when the caller goes away.
    pub async fn redeem(
        &self,
        cashu_token: &str,
        into: AccountId,
        at_least: Msat,
    ) -> Result<Redeemed, RedeemRefused> {
        self.redeem_for(cashu_token, into.into(), at_least, Mints::Accepted).await
    }

    /// The same for value that is not paid for a request, but in: also of a foreign mint's. An
    /// account that is new is opened under the terms. One that exists keeps its own, and so does
    /// one that this very token has opened or is opening.
    pub async fn pay_in(
        &self,
        cashu_token: &str,
        opening: Opening,
    ) -> Result<Redeemed, RedeemRefused> {
        let Opening { account, terms } = opening;
        let payee = Payee { account, terms: kept(&terms) };
        self.redeem_for(cashu_token, payee, Msat::ZERO, Mints::Named).await
    }

    async fn redeem_for(
        &self,
        cashu_token: &str,
        payee: Payee,
        at_least: Msat,
        mints: Mints,
    ) -> Result<Redeemed, RedeemRefused> {
        let into = payee.account.clone();
        let id = DepositId::of_cashu_token(cashu_token);
        let patience = self.wallet().timeout();
        for _ in 0..FLIGHTS_MAX {
            let (waiting, ours) = match self.0.redemptions.board(&id) {
                Boarding::Pilot(flight) => {
                    let waiting = flight.waiting();
                    let text = CashuToken::new(cashu_token);
                    let flown = self.clone().fly(flight, text, payee.clone(), at_least, mints);
                    self.wallet().handle().spawn(flown);
                    (waiting, true)
                }
                Boarding::Passenger(waiting) => (waiting, false),
            };
            let outcome = waiting.outcome(patience).await.ok_or(RedeemRefused::Unknown)?;
            match outcome {
                Some(Ok(redeemed)) if redeemed.account != into => {
                    return Err(RedeemRefused::AlreadySpent);
                }
                Some(Ok(redeemed)) => {
                    return Ok(Redeemed { fresh: ours && redeemed.fresh, ..redeemed });
                }
                // Too small for whoever flew, not for us.
                Some(Err(RedeemRefused::TooSmall { value, .. })) if !ours && value >= at_least => {}
                Some(Err(refused)) => return Err(refused),
                None => {}
            }
        }
        Err(RedeemRefused::Unknown)
    }

    /// Whether a redemption of this token is under way or undecided.
    pub async fn is_redeeming(&self, cashu_token: &str) -> bool {
        let id = DepositId::of_cashu_token(cashu_token);
        // A store that does not answer leaves it undecided.
        self.0.redemptions.is_flying(&id) || self.wallet().is_undecided(&id).await.unwrap_or(true)
    }

    async fn fly(
        self,
        flight: Flight<DepositId, Landed>,
        text: CashuToken,
        payee: Payee,
        at_least: Msat,
        mints: Mints,
    ) {
        // Nothing is taken while it could not be credited.
        if let Err(why) = self.ledger().account(payee.account.clone()).await {
            log::warn!("no redemption: {why}");
            return flight.land(Some(Err(RedeemRefused::LedgerUnavailable)));
        }
        let asked = || flight.asked();
        let redeemed = self.wallet().redeem(text.reveal(), payee.clone(), at_least, &asked).await;
        let outcome = match redeemed {
            Ok(redemption) => self.credit(redemption).await,
            Err(RedeemRefused::MintNotAccepted) if mints == Mints::Named => {
                self.swap(text, payee, &asked).await
            }
            Err(refused) => Err(refused),
        };
        flight.land(Some(outcome));
    }

    /// Gives the account what became ours. Repeated, it is the same deposit.
    pub(super) async fn credit(&self, redemption: Redemption) -> Result<Redeemed, RedeemRefused> {
        let Redemption { id, account, terms, amount, credited, fresh } = redemption;
        let redeemed = Redeemed { account: account.clone(), amount, fresh };
        if credited {
            return Ok(redeemed);
        }
        if let Some(terms) = terms
            && let Err(why) = self.open_under(account.clone(), &terms).await
        {
            log::error!("redemption {id}: not credited yet: {why}");
            return Err(RedeemRefused::LedgerUnavailable);
        }
        let deposit = Deposit { id: id.clone(), account, amount };
        if let Err(why) = self.ledger().deposit(deposit).await {
            log::warn!("redemption {id}: not credited yet: {why:?}");
            return Err(RedeemRefused::LedgerUnavailable);
        }
        crash::point(Step::Deposited);
        if let Err(error) = self.wallet().credited(&id).await {
            log::warn!("redemption {id}: deposited, and not noted as such: {error}");
        }
        crash::point(Step::Credited);
        Ok(redeemed)
    }

    async fn open_under(&self, account: AccountId, terms: &str) -> Result<(), String> {
        let opening = Opening { account, terms: restored(terms)? };
        self.ledger().open(opening).await.map_err(|why| why.to_string())?;
        crash::point(Step::Opened);
        Ok(())
    }
}

/// Which mints' ecash is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mints {
    Accepted,
    /// All that configuration names: foreign ones over Lightning.
    Named,
}

/// Flights a caller boards before it is told that the outcome is not known: each of the
/// others decided nothing for it.
const FLIGHTS_MAX: u32 = 8;
