//! The ledger of a fleet: every verb one atomic script on Redis.
//!
//! **Keys.** Everything about an account carries the hash tag of its *shard*, the first two
//! digits of its id, so that a verb touches one slot and the ledger runs on one server, under
//! sentinels or in a cluster unchanged. A shard of many accounts, and not a tag for each,
//! because then one index of deadlines and one of unfinished withdrawals serve 1/256 of all
//! accounts: renewals go in one call per shard, any gateway's reaper finds what is overdue, and
//! a child, whose key is chosen to fall in its parent's shard, moves together with its parent.
//!
//! | key | holds |
//! |---|---|
//! | `ng:{ab}:a:<account>` | amounts, terms and usage; its deposits, each a field named by its id |
//! | `ng:{ab}:r:<reservation>` | an open reservation; ended, its receipt, for [`RECEIPTS_KEPT`] |
//! | `ng:{ab}:due` | open reservations by their deadline |
//! | `ng:{ab}:w:<account>` | the account's withdrawals |
//! | `ng:{ab}:c:<account>` | the ids of its children that are not revoked |
//! | `ng:{ab}:h:<account>` | its history, the newest first; as long after the last as it is told |
//! | `ng:{ab}:o:<once>` | what is remembered under an `Idempotency-Key`, with its answer |
//! | `ng:{ab}:k:<account>` | how many bytes of answers it has kept lately |
//! | `ng:{ab}:begun` | withdrawals that are neither committed nor reverted, by when they began |
//!
//! **Time** is the server's `TIME`. **An admission whose answer is lost** is handed back by
//! the reaper within a second, because its reservation is armed before Redis is asked; one that a
//! server executes even later is held until its deadline, and costs nothing.

mod address;
mod advice;
pub mod audit;
mod durable;
mod link;
mod once;
mod replies;
mod scripts;
mod shard;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use tokio::runtime::{Handle, Runtime};

use self::address::Address;
use self::durable::Durable;
use self::link::{Call, Link};
use self::replies::Parts;
use self::scripts::{ACCOUNT_FIELDS, HAS_CHILDREN, with_terms};
use self::shard::Shard;
use super::once::{Claim, Claimed, Keep};
use super::{
    Account, Admission, Admitted, Amendment, Amount, Change, Children, Cursor, Denial, Denied,
    Deposit, End, Family, Ledger, Live, NotOpened, Opening, Page, Receipt, Renewal, Reservation,
    Retention, Unavailable, Unsettled, Withdrawal, WithdrawalAsk, WithdrawalDenied,
};
use crate::clock::Clock;
use crate::ids::{AccountId, AttemptId, OnceId, WithdrawalId};
use crate::money::Msat;

pub use self::scripts::Scripts;
pub use self::walk::Look;

/// The Redis backend; cheap to clone. Its runtime ends with the last handle.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    link: Link,
    /// For what no client waits for: the reaper's and the keeper's rounds through all shards.
    background: Link,
    durable: Durable,
    scripts: Scripts,
    clock: Clock,
    live: Live,
    runtime: Option<Runtime>,
}

impl Redis {
    /// Connects in the background: a ledger that is not there answers [`Unavailable`].
    /// `patience` bounds every verb; the durable ones may take [`durable`]'s wait besides.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn open(address: &str, patience: Duration) -> Result<Self, String> {
        Self::keeping(address, patience, Retention::default())
    }

    /// The same, whose histories are told so far.
    pub fn keeping(
        address: &str,
        patience: Duration,
        retention: Retention,
    ) -> Result<Self, String> {
        Self::with(address, patience, Clock::of_a_fleet(), Scripts::keeping(retention))
    }

    /// The same under another clock and with other scripts, for simulations.
    pub fn with(
        address: &str,
        patience: Duration,
        clock: Clock,
        scripts: Scripts,
    ) -> Result<Self, String> {
        let address = Address::parse(address)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ledger")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let handle = runtime.handle().clone();
        let link = Link::open(address.clone(), patience, handle.clone())?;
        handle.spawn(advice::give(link.clone()));
        let disk_patience = patience.saturating_add(durable::DISK_MAX);
        let background = link.patiently(BACKGROUND_PATIENCE.max(patience));
        let durable = Link::open(address, disk_patience, handle.clone())?;
        let durable = Durable::open(durable, &handle);
        let (live, runtime) = (Live::default(), Some(runtime));
        Ok(Self(Arc::new(Inner { link, background, durable, scripts, clock, live, runtime })))
    }

    /// The runtime that carries the connections; the reaper runs there too.
    pub fn handle(&self) -> &Handle {
        let runtime = self.0.runtime.as_ref();
        runtime.expect("it is taken out only when the last handle is dropped").handle()
    }

    /// What scripts are told about the time: nothing, but in a simulation.
    fn now(&self) -> String {
        match &self.0.clock {
            Clock::System => String::new(),
            manual @ Clock::Manual(_) => manual.now().0.to_string(),
        }
    }

    async fn undraw(
        &self,
        account: &AccountId,
        id: &WithdrawalId,
        state: &str,
    ) -> Result<(), Unavailable> {
        let shard = Shard::of(account);
        let keys = [
            shard.account(account),
            shard.withdrawals(account),
            shard.begun(),
            shard.history(account),
        ];
        let call = Call::new(&self.0.scripts.undraw, keys).arg(id).arg(account).arg(state);
        self.0.durable.call(shard.tag, &call).await.map(drop)
    }
}

impl Ledger for Redis {
    fn live(&self) -> &Live {
        &self.0.live
    }

    async fn open(&self, opening: Opening) -> Result<Account, Unavailable> {
        let shard = Shard::of(&opening.account);
        let call = Call::new(&self.0.scripts.open, [shard.account(&opening.account)]);
        let call = with_terms(call, &opening.terms);
        let account = Parts::of(self.0.durable.call(shard.tag, &call).await?)?.account()?;
        account.ok_or_else(replies::unreadable)
    }

    async fn open_children(
        &self,
        children: Children,
    ) -> Result<Result<Account, NotOpened>, Unavailable> {
        let Children { parent, accounts, terms } = &children;
        let shard = Shard::of(parent);
        if accounts.iter().any(|child| Shard::of(child) != shard) {
            return Err(Unavailable("a child belongs in its parent's shard".to_owned()));
        }
        let keys = [shard.account(parent), shard.children(parent)];
        let call = Call::new(&self.0.scripts.children, keys)
            .arg(shard.accounts())
            .arg(parent)
            .arg(accounts.len());
        let call = with_terms(accounts.iter().fold(call, Call::arg), terms);
        Parts::of(self.0.durable.call(shard.tag, &call).await?)?.opened()
    }

    async fn amend(&self, amendment: Amendment) -> Result<Option<Account>, Unavailable> {
        let Amendment { parent, child, change } = &amendment;
        let shard = Shard::of(parent);
        if Shard::of(child) != shard {
            return Ok(None);
        }
        let change = match change {
            Change::ResetCap => "reset",
            Change::Revoke => "revoke",
        };
        let keys = [shard.account(child), shard.children(parent)];
        let call = Call::new(&self.0.scripts.amend, keys).arg(parent).arg(child).arg(change);
        Parts::of(self.0.durable.call(shard.tag, &call).await?)?.account()
    }

    async fn family(&self, account: AccountId) -> Result<Option<Family>, Unavailable> {
        let shard = Shard::of(&account);
        let mut look = redis::cmd("HMGET");
        look.arg(shard.account(&account)).arg(&ACCOUNT_FIELDS).arg(HAS_CHILDREN);
        if let Some(single) = Parts::of(self.0.link.run(&look).await?)?.single()? {
            return Ok(single.map(Family::alone));
        }
        let keys = [shard.account(&account), shard.children(&account)];
        let call = Call::new(&self.0.scripts.family, keys).arg(shard.accounts());
        Parts::of(self.0.link.run(&call).await?)?.family()
    }

    async fn deposit(&self, deposit: Deposit) -> Result<Account, Unavailable> {
        let shard = Shard::of(&deposit.account);
        let call = Call::new(&self.0.scripts.deposit, [shard.account(&deposit.account)])
            .arg(shard.prefix())
            .arg(self.now())
            .arg(&deposit.id)
            .arg(&deposit.account)
            .arg(deposit.amount.get());
        let account = Parts::of(self.0.durable.call(shard.tag, &call).await?)?.account()?;
        account.ok_or_else(replies::unreadable)
    }

    async fn admit(&self, ask: Admission) -> Result<Result<Admitted, Denial>, Unavailable> {
        let shard = Shard::of(&ask.account);
        let (id, account) = (ask.reservation.clone(), ask.account.clone());
        let reservation = Reservation::open(id, account, ask.ceiling, &self.0.live);
        let keys = [shard.account(&ask.account), shard.reservation(&ask.reservation), shard.due()];
        let call = Call::new(&self.0.scripts.admit, keys)
            .arg(shard.accounts())
            .arg(self.now())
            .arg(&ask.reservation)
            .arg(&ask.account)
            .arg(ask.ceiling.get())
            .arg(ask.tokens)
            .arg(ask.lifetime.as_millis())
            .arg(ask.limits.requests_per_minute)
            .arg(ask.limits.tokens_per_hour)
            .arg(ask.limits.concurrent);
        let call = match &ask.once {
            None => call,
            Some(once) => {
                call.key(shard.once(&once.id)).arg(&once.fingerprint).arg(shard.reservations())
            }
        };
        let answer = Parts::of(self.0.link.run(&call).await?)?.admission()?;
        Ok(match answer {
            Ok((available, standing)) => Ok(Admitted { reservation, available, standing }),
            Err(denial) => {
                reservation.ended();
                Err(denial)
            }
        })
    }

    async fn extend(
        &self,
        reservation: &mut Reservation,
        amount: Msat,
    ) -> Result<Result<Msat, Denied>, Unavailable> {
        let shard = Shard::of(&reservation.account);
        let call = Call::new(&self.0.scripts.extend, [shard.reservation(&reservation.id)])
            .arg(shard.accounts())
            .arg(self.now())
            .arg(amount.get());
        let extended = Parts::of(self.0.link.run(&call).await?)?.reserved()?;
        if extended.is_ok() {
            reservation.amount = reservation.amount.max(amount);
        }
        Ok(extended)
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<(), Unavailable> {
        let mut shards: BTreeMap<String, Vec<Renewal>> = BTreeMap::new();
        for renewal in renewals {
            shards.entry(Shard::of(&renewal.account).tag).or_default().push(renewal);
        }
        let parts = shards.iter().flat_map(|(tag, renewals)| {
            renewals.chunks(AT_ONCE_MAX).map(|some| (tag.clone(), some))
        });
        let calls = parts.map(async |(tag, renewals)| {
            let shard = Shard { tag };
            let call =
                Call::new(&self.0.scripts.renew, [shard.due()]).arg(shard.prefix()).arg(self.now());
            let call = renewals.iter().fold(call, |call, renewal| {
                call.arg(&renewal.reservation)
                    .arg(renewal.lifetime.as_millis())
                    .arg(renewal.accrued.get())
            });
            self.0.background.run(&call).await.map(drop)
        });
        join_all(calls).await.into_iter().collect()
    }

    async fn end(&self, reservation: Reservation, end: End) -> Result<Receipt, Unsettled> {
        let (how, cost, record) = (end.how(), end.cost(), end.into_record());
        let (shard, id) = (Shard::of(&reservation.account), &reservation.id);
        let call = Call::new(&self.0.scripts.end, [shard.reservation(id)])
            .arg(shard.prefix())
            .arg(self.now())
            .arg(id)
            .arg(how.name())
            .arg(cost.get())
            .arg(record.input_tokens)
            .arg(record.output_tokens)
            .arg(replies::lines_of(&record));
        let receipt = match self.0.link.run(&call).await.and_then(Parts::of) {
            Ok(parts) if parts.is_empty() => Ok(None),
            Ok(mut parts) => parts.receipt().map(Some),
            Err(why) => Err(why),
        };
        match receipt {
            Ok(receipt) => {
                reservation.ended();
                receipt.ok_or(Unsettled::Forgotten)
            }
            Err(why) => Err(Unsettled::NoAnswer { reservation, why }),
        }
    }

    async fn expire(&self) -> Result<Vec<Receipt>, Unavailable> {
        let calls = Shard::all().map(async |shard| {
            let call = Call::new(&self.0.scripts.expire, [shard.due()])
                .arg(shard.prefix())
                .arg(self.now())
                .arg(AT_ONCE_MAX);
            let mut parts = Parts::of(self.0.background.run(&call).await?)?;
            let mut ended = Vec::new();
            while !parts.is_empty() {
                ended.push((parts.number()?, parts.receipt()?));
            }
            Ok(ended)
        });
        let ended: Result<Vec<Vec<_>>, Unavailable> = join_all(calls).await.into_iter().collect();
        let mut ended: Vec<(u64, Receipt)> = ended?.concat();
        ended.sort_by_key(|(deadline, _)| *deadline);
        Ok(ended.into_iter().map(|(_, receipt)| receipt).collect())
    }

    async fn withdraw_begin(
        &self,
        ask: WithdrawalAsk,
    ) -> Result<Result<Withdrawal, WithdrawalDenied>, Unavailable> {
        let shard = Shard::of(&ask.account);
        let keys = [shard.account(&ask.account), shard.withdrawals(&ask.account), shard.begun()];
        let (mode, amount) = match ask.amount {
            Amount::Exactly(amount) => ("exactly", amount),
            Amount::Everything { unit } => ("everything", unit),
        };
        let call = Call::new(&self.0.scripts.withdraw, keys)
            .arg(self.now())
            .arg(&ask.id)
            .arg(&ask.account)
            .arg(mode)
            .arg(amount.get())
            .arg(&ask.unit)
            .arg(&ask.mint)
            .arg(shard.prefix());
        let answer = self.0.durable.call(shard.tag, &call).await?;
        Parts::of(answer)?.withdrawal(ask.account, ask.id)
    }

    async fn withdraw_commit(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<(), Unavailable> {
        self.undraw(&account, &id, "committed").await
    }

    async fn withdraw_revert(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<(), Unavailable> {
        self.undraw(&account, &id, "reverted").await
    }

    async fn withdrawal(
        &self,
        account: AccountId,
        id: WithdrawalId,
    ) -> Result<Option<Withdrawal>, Unavailable> {
        let key = Shard::of(&account).withdrawals(&account);
        let mut look = redis::cmd("HGET");
        look.arg(key).arg(id.as_str());
        match self.0.link.run(&look).await? {
            Value::Nil => Ok(None),
            row => replies::withdrawal(&replies::text(row)?, account, id).map(Some),
        }
    }

    async fn withdrawals_open(&self) -> Result<Vec<Withdrawal>, Unavailable> {
        let looks = Shard::all().map(async |shard| {
            let mut look = redis::cmd("ZRANGE");
            look.arg(shard.begun()).arg(0).arg(-1).arg("WITHSCORES");
            let mut parts = Parts::of(self.0.background.run(&look).await?)?;
            let mut begun = Vec::new();
            while !parts.is_empty() {
                begun.push((parts.text()?, parts.number()?));
            }
            Ok(begun)
        });
        let begun: Result<Vec<Vec<_>>, Unavailable> = join_all(looks).await.into_iter().collect();
        let mut begun: Vec<(String, u64)> = begun?.concat();
        begun.sort_by_key(|(_, since)| *since);
        let found = begun.iter().filter_map(|(member, _)| {
            let (account, id) = member.split_once(' ')?;
            Some(self.withdrawal(AccountId::stored(account), WithdrawalId::stored(id)))
        });
        let found: Result<Vec<_>, _> = join_all(found).await.into_iter().collect();
        Ok(found?.into_iter().flatten().collect())
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Unavailable> {
        self.claim_once(claim).await
    }

    async fn keep(&self, keep: Keep) -> Result<bool, Unavailable> {
        self.keep_answer(keep).await
    }

    async fn forget(
        &self,
        account: AccountId,
        once: OnceId,
        attempt: AttemptId,
    ) -> Result<(), Unavailable> {
        self.forget_once(&account, &once, &attempt).await
    }

    async fn kept(&self, account: AccountId, once: OnceId) -> Result<Option<Vec<u8>>, Unavailable> {
        self.kept_answer(&account, &once).await
    }

    async fn account(&self, account: AccountId) -> Result<Option<Account>, Unavailable> {
        let key = Shard::of(&account).account(&account);
        let mut look = redis::cmd("HMGET");
        look.arg(key).arg(&ACCOUNT_FIELDS);
        Parts::of(self.0.link.run(&look).await?)?.account()
    }

    async fn history(
        &self,
        account: AccountId,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page, Unavailable> {
        let (shard, limit) = (Shard::of(&account), Page::limit(limit));
        let keys = [shard.account(&account), shard.history(&account)];
        let call = Call::new(&self.0.scripts.history, keys)
            .arg(before.map(|cursor| cursor.nth().to_string()).unwrap_or_default())
            .arg(limit.saturating_add(1))
            .arg(self.now());
        let (mut parts, mut found) = (Parts::of(self.0.link.run(&call).await?)?, Vec::new());
        while !parts.is_empty() {
            found.push((parts.number()?, replies::entry(&parts.text()?)?));
        }
        Ok(Page::of(found, limit))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last handle may be dropped on any runtime's thread, where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How long a repeated end finds the receipt of the first.
pub const RECEIPTS_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// A busy server is no reason to leave a round through the shards half done.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(5);

/// Reservations of one shard renewed or ended by one call: it never holds the server for long.
const AT_ONCE_MAX: usize = 100;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod tests;
