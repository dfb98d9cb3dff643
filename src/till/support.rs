//! A till over a real ledger, a real wallet and a real mint, for this folder's tests.

use std::path::Path;
use std::time::Duration;

use nutgate_sandbox::{CurrencyUnit, Faucet, Mint, MintOptions, TokenFormat};

use super::{RedeemRefused, Redeemed, RefundAsk, RefundRefused, Refunded, Till};
use crate::clock::Clock;
use crate::config;
use crate::ids::{AccountId, ApiKey, ReservationId};
use crate::ledger::embedded::{self, Embedded};
use crate::ledger::terms::Limits;
use crate::ledger::{Account, Admission, Ledger, Record};
use crate::money::Msat;
use crate::store::{Durability, Store};
use crate::wallet::{self, Audit, Wallet, audit_rows};

pub(super) struct Bench {
    pub(super) mint: Mint,
    pub(super) faucet: Faucet,
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) till: Till<Embedded>,
}

impl Bench {
    pub(super) async fn start() -> Self {
        Self::with(MintOptions::default()).await
    }

    pub(super) async fn with(options: MintOptions) -> Self {
        let mint = Mint::start(options).await.unwrap();
        let faucet = Faucet::new(&mint.url()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (store, till) = open(dir.path(), &mint.url(), PATIENT).await;
        Self { mint, faucet, dir, store, till }
    }

    /// What a process finds that starts after this one was killed here and now. This one
    /// lives on, which a killed one would not; tests leave it alone from here on.
    pub(super) async fn after_a_crash(&self) -> (tempfile::TempDir, Till<Embedded>) {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let (_store, till) = open(dir.path(), &self.mint.url(), PATIENT).await;
        (dir, till)
    }

    /// The same data directory under a till that waits for mints only briefly.
    pub(super) async fn impatient(mut self) -> Self {
        let (dir, mint) = (self.dir.path().to_owned(), self.mint.url());
        let elsewhere = tempfile::tempdir().unwrap();
        (self.store, self.till) = open(elsewhere.path(), &mint, PATIENT).await;
        (self.store, self.till) = open(&dir, &mint, IMPATIENT).await;
        self
    }

    pub(super) async fn sats(&self, amount: u64) -> String {
        self.faucet.cashu(amount, CurrencyUnit::Sat, TokenFormat::B).await.unwrap()
    }

    pub(super) async fn redeem(&self, text: &str) -> Result<Redeemed, RedeemRefused> {
        self.till.redeem(text, owner(text), Msat::ZERO).await
    }

    /// A fresh token of so many sats, made balance of its own account.
    pub(super) async fn funded(&self, amount: u64) -> AccountId {
        let text = self.sats(amount).await;
        let redeemed = self.redeem(&text).await.unwrap();
        assert_eq!(redeemed.amount, sat(amount));
        redeemed.account
    }

    pub(super) async fn refund(&self, account: &AccountId) -> Result<Refunded, RefundRefused> {
        self.till.refund(account.clone(), RefundAsk::default()).await
    }

    pub(super) async fn refund_sats(
        &self,
        account: &AccountId,
        amount: u64,
    ) -> Result<Refunded, RefundRefused> {
        let ask = RefundAsk { amount: Some(sat(amount)), mint: None };
        self.till.refund(account.clone(), ask).await
    }

    pub(super) async fn spend(&self, account: &AccountId, cost: Msat) {
        let admission = Admission {
            reservation: ReservationId::fresh(),
            account: account.clone(),
            ceiling: cost,
            tokens: 0,
            lifetime: Duration::from_secs(60),
            limits: Limits::NONE,
        };
        let ledger = self.till.ledger();
        let admitted = ledger.admit(admission).await.unwrap().unwrap();
        ledger.settle(admitted.reservation, cost, Record::default()).await.unwrap();
    }

    pub(super) async fn value_of(&self, refunded: &Refunded) -> u64 {
        self.faucet.value_in_fresh_wallet(refunded.cashu_token.reveal()).await.unwrap()
    }

    /// The wallet's sums, which must agree with each other and back what the accounts have.
    pub(super) async fn audit(&self) -> Audit {
        let audit = self.audited().await;
        assert!(audit.is_consistent(), "{audit:?}");
        audit
    }

    pub(super) async fn audited(&self) -> Audit {
        self.store.write(Durability::Process, audit_rows).await.unwrap()
    }
}

/// Waits for the lock of a store just dropped.
pub(super) async fn open(dir: &Path, mint: &str, timeout: Duration) -> (Store, Till<Embedded>) {
    let schema = format!("{}{}", embedded::SCHEMA, wallet::SCHEMA);
    let store = loop {
        match Store::open(&dir.join("nutgate.db"), &schema) {
            Ok(store) => break store,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let units = vec!["sat".to_owned(), "msat".to_owned()];
    let mints = [config::Mint { url: format!("{mint}/"), units }];
    let wallet = Wallet::open(dir, store.clone(), &mints, timeout).await.unwrap();
    (store.clone(), Till::open(Embedded::new(store, Clock::System), wallet))
}

pub(super) async fn holds(till: &Till<Embedded>, account: &AccountId) -> Account {
    till.ledger().account(account.clone()).await.unwrap().unwrap_or_default()
}

pub(super) fn owner(text: &str) -> AccountId {
    ApiKey::of_cashu_token(text).account()
}

pub(super) fn sat(amount: u64) -> Msat {
    Msat::from_sats(amount).unwrap()
}

pub(super) const PATIENT: Duration = Duration::from_secs(20);
pub(super) const IMPATIENT: Duration = Duration::from_millis(300);
