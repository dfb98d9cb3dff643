//! A foreign mint's token, then an invoice of ours that it pays, then a deposit.
//!
//! Only our mint's word makes it a deposit: when it has the payment, whoever looks credits it,
//! this flight or the keeper, as with every invoice (`lightning.rs`).

use std::time::Duration;

use super::{CashuToken, RedeemRefused, Redeemed, Swapped, Till};
use crate::clock::Stopwatch;
use crate::ids::DepositId;
use crate::ledger::Ledger;
use crate::wallet::{Looked, Payee};

impl<L: Ledger> Till<L> {
    /// What of a foreign mint's token became what; `None` for every other token, and while it
    /// cannot be said.
    pub async fn swapped(&self, cashu_token: &str) -> Option<Swapped> {
        if !self.wallet().takes_foreign() {
            return None;
        }
        let (wallet, id) = (self.wallet().clone(), DepositId::of_cashu_token(cashu_token));
        let asked = self.wallet().handle().spawn(async move { wallet.swapped(&id).await }).await;
        asked.ok()?.unwrap_or_else(|error| {
            log::warn!("swap: {error}");
            None
        })
    }

    /// Has the token's mint pay one of ours, and waits a bounded time for the payment.
    pub(super) async fn swap(
        &self,
        text: CashuToken,
        payee: Payee,
        asked: &(dyn Fn() + Send + Sync),
    ) -> Result<Redeemed, RedeemRefused> {
        let id = DepositId::of_cashu_token(text.reveal());
        match self.wallet().pay_with_foreign(text.reveal(), &payee, asked).await {
            // It may be on its way in both cases.
            Ok(()) | Err(RedeemRefused::Unknown) => {}
            Err(refused) => return Err(refused),
        }
        let waiting = Stopwatch::start();
        let mut pause = LOOK_FIRST;
        loop {
            match self.wallet().look_at_quote(&id).await {
                Looked::Paid(paid) => {
                    return self.settle(&id, *paid).await.0.unwrap_or(Err(RedeemRefused::Unknown));
                }
                Looked::Redeemed(redemption) => return self.credit(redemption).await,
                Looked::Unpaid | Looked::Unknown => {}
                Looked::Forgotten => return Err(RedeemRefused::Unknown),
            }
            if waiting.elapsed() >= self.wallet().timeout() {
                return Err(RedeemRefused::Unknown);
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LOOK_LAST);
        }
    }
}

/// Between looks at our mint: a payment takes a moment or long.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LAST: Duration = Duration::from_secs(1);
