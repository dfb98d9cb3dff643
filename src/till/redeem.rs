//! Redeem, then deposit: a token becomes balance once, however often it is shown.

use super::flights::{Boarding, Flight};
use super::{CashuToken, Landed, RedeemRefused, Redeemed, Till};
use crate::crash::{self, Step};
use crate::ids::{AccountId, DepositId};
use crate::ledger::{Deposit, Ledger};
use crate::money::Msat;
use crate::wallet::Redemption;

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
        let id = DepositId::of_cashu_token(cashu_token);
        let patience = self.wallet().timeout();
        for _ in 0..FLIGHTS_MAX {
            let (waiting, ours) = match self.0.redemptions.board(&id) {
                Boarding::Pilot(flight) => {
                    let waiting = flight.waiting();
                    let text = CashuToken::new(cashu_token);
                    let flown = self.clone().fly(flight, text, into.clone(), at_least);
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
        into: AccountId,
        at_least: Msat,
    ) {
        // Nothing is taken while it could not be credited.
        if let Err(why) = self.ledger().account(into.clone()).await {
            log::warn!("no redemption: {why}");
            return flight.land(Some(Err(RedeemRefused::LedgerUnavailable)));
        }
        let asked = || flight.asked();
        let outcome = match self.wallet().redeem(text.reveal(), into, at_least, &asked).await {
            Ok(redemption) => self.credit(redemption).await,
            Err(refused) => Err(refused),
        };
        flight.land(Some(outcome));
    }

    /// Gives the account what became ours. Repeated, it is the same deposit.
    pub(super) async fn credit(&self, redemption: Redemption) -> Result<Redeemed, RedeemRefused> {
        let Redemption { id, account, amount, credited, fresh } = redemption;
        let redeemed = Redeemed { account: account.clone(), amount, fresh };
        if credited {
            return Ok(redeemed);
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
}

/// Flights a caller boards before it is told that the outcome is not known: each of the
/// others decided nothing for it.
const FLIGHTS_MAX: u32 = 8;
