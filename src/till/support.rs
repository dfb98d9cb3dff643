//! A till over a real ledger, a real wallet and a real mint, for this folder's tests.

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
use crate::store::Db;
use crate::store::place::{Over, Place};
use crate::wallet::{self, Audit, Wallet, audit_rows};

pub(super) struct Bench {
    pub(super) mint: Mint,
    pub(super) faucet: Faucet,
    pub(super) machine: Machine,
    pub(super) db: Db,
    pub(super) till: Till<Embedded>,
}

pub(super) type Gateway = Till<Embedded>;

/// A data directory, and where the wallet is.
pub(super) struct Machine {
    dir: tempfile::TempDir,
    place: Place,
}

impl Machine {
    /// The ledger is embedded also where the wallet is on a server: what matters here is that
    /// they are two.
    pub(super) async fn open(&self, mint: &str, timeout: Duration) -> (Db, Till<Embedded>) {
        let store = loop {
            // A store just dropped lets go of its lock a moment later.
            match embedded::open_store(&self.dir.path().join("nutgate.db")) {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let db = self.place.open(&store);
        let wallet = self.wallet(&db, mint, timeout).await;
        (db, Till::open(Embedded::new(store, Clock::System), wallet))
    }

    /// A gateway's wallet.
    pub(super) async fn wallet(&self, db: &Db, mint: &str, timeout: Duration) -> Wallet {
        let units = vec!["sat".to_owned(), "msat".to_owned()];
        let mints = [config::Mint { url: format!("{mint}/"), units }];
        Wallet::open(db.clone(), &self.dir.path().join("seed"), &mints, timeout).await.unwrap()
    }

    async fn copied(&self, db: &Db) -> Self {
        let place = self.place.copied(db, wallet::SCHEMA).await;
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        Self { dir, place }
    }
}

impl Bench {
    pub(super) async fn start(over: Over) -> Self {
        Self::with(over, MintOptions::default()).await
    }

    pub(super) async fn with(over: Over, options: MintOptions) -> Self {
        let mint = Mint::start(options).await.unwrap();
        let faucet = Faucet::new(&mint.url()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine { dir, place: Place::fresh(over).await };
        let (db, till) = machine.open(&mint.url(), PATIENT).await;
        Self { mint, faucet, machine, db, till }
    }

    /// What a process finds that starts after this one was killed here and now. This one
    /// lives on, which a killed one would not; tests leave it alone from here on.
    pub(super) async fn after_a_crash(&self) -> (Machine, Till<Embedded>) {
        let copy = self.machine.copied(&self.db).await;
        let (_db, till) = copy.open(&self.mint.url(), PATIENT).await;
        (copy, till)
    }

    /// One more gateway of a fleet: its own wallet, its own connections, the same ledger.
    pub(super) async fn another_gateway(&self, timeout: Duration) -> Gateway {
        let Place::Postgres { url, .. } = &self.machine.place else { panic!("one machine") };
        let db = Db::postgres(url).unwrap();
        let wallet = self.machine.wallet(&db, &self.mint.url(), timeout).await;
        Till::open(self.till.ledger().clone(), wallet)
    }

    /// The same data under a till that waits for mints only briefly.
    pub(super) async fn impatient(mut self) -> Self {
        let elsewhere = self.machine.copied(&self.db).await;
        (self.db, self.till) = elsewhere.open(&self.mint.url(), PATIENT).await;
        (self.db, self.till) = self.machine.open(&self.mint.url(), IMPATIENT).await;
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
        let ask = RefundAsk { amount: Some(sat(amount)), mint: None, once: None };
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
            once: None,
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
        self.db.snapshot(audit_rows).await.unwrap()
    }
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
