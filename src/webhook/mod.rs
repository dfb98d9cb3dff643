//! Webhooks: what happens to an account is posted to where its owner says.
//!
//! * `event`: what there is to hear of, and the id that an event has for ever.
//! * `watch`: from an account's history to deliveries, once.
//! * `rows`: registrations and queues, in the wallet's database: they survive everything that it
//!   survives, and a fleet shares them.
//! * `deliver`: from the queues to the endpoints, at least once, with retries over days.
//! * `secret`: how a delivery is signed; secrets are sealed by a key of the wallet's seed.
//!
//! Whoever registers an address makes this machine connect to it: it is judged by
//! [`crate::fetch::guard`] when it is registered and again for every attempt. Nothing here is in
//! the path of a request, and no order of deliveries is promised.

mod deliver;
mod event;
mod rows;
mod schema;
mod secret;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use self::rows::{Listener, New};
use crate::config;
use crate::fetch::Fetch;
use crate::fetch::guard::{Guard, Unwelcome};
use crate::ids::AccountId;
use crate::ledger::{Ledger, News, Unavailable};
use crate::seal::Seal;
use crate::store::{Db, Durability, StoreError};
use crate::telemetry::Metrics;
use crate::wallet::Wallet;

pub use self::event::EventKind;
pub use self::rows::{PER_ACCOUNT_MAX, Registered};
pub use self::secret::WebhookSecret;

/// Registrations and their deliveries. A clone is the same.
pub struct Webhooks<L: Ledger>(Arc<Inner<L>>);

struct Inner<L> {
    ledger: L,
    db: Db,
    /// This process, as the holder of webhooks.
    gateway: String,
    seal: Seal,
    guard: Guard,
    fetch: Fetch,
    config: config::Webhooks,
    news: News,
    /// Something was put into a queue.
    queued: Arc<Notify>,
    metrics: Metrics,
}

/// What is to be registered for an account.
#[derive(Clone, Debug)]
pub struct Registration {
    pub account: AccountId,
    pub url: String,
    /// Not empty.
    pub events: Vec<EventKind>,
    /// `None`: one is made.
    pub secret: Option<WebhookSecret>,
}

/// Why a webhook was not registered, listed or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WebhookRefused {
    #[error("the url {0}")]
    Url(Unwelcome),
    #[error("the account has as many as it may have")]
    TooMany,
    #[error("unknown account")]
    NoAccount,
    #[error("a child key has no balance")]
    NotForChildren,
    #[error("{0}")]
    Ledger(#[from] Unavailable),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl<L: Ledger> Webhooks<L> {
    /// Makes the tables if need be. Call [`Webhooks::run`] to deliver.
    ///
    /// # Errors
    /// The database cannot be used, or there are no authorities to trust.
    pub async fn open(
        ledger: L,
        news: News,
        wallet: &Wallet,
        config: config::Webhooks,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let db = wallet.db().clone();
        let alone = !db.is_shared();
        let create = move |tx: &mut crate::store::Tx<'_>| {
            tx.create(schema::SCHEMA)?;
            if alone { rows::release_all(tx) } else { Ok(()) }
        };
        db.write(Durability::Process, create).await.map_err(|error| error.to_string())?;
        let inner = Inner {
            ledger,
            db,
            gateway: wallet.gateway().to_owned(),
            seal: Seal::new(&wallet.sealing_key("webhooks")),
            guard: Guard::new(config.allow_private),
            fetch: Fetch::new(None)?,
            config,
            news,
            queued: Arc::default(),
            metrics,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Watches and delivers on this runtime, until the last handle is gone.
    pub fn run(&self, on: &Handle) {
        on.spawn(Self::watch(Arc::downgrade(&self.0)));
        on.spawn(Self::deliver(Arc::downgrade(&self.0)));
    }

    /// Registers a webhook for what happens from now on. Answers it with its secret, which is
    /// shown here and never again.
    ///
    /// # Errors
    /// Its address is not welcome, or the account cannot have it. Nothing was registered.
    pub async fn register(
        &self,
        registration: Registration,
    ) -> Result<(Registered, WebhookSecret), WebhookRefused> {
        let Registration { account, url, events, secret } = registration;
        let at = self.0.guard.admit(&url).await.map_err(WebhookRefused::Url)?;
        let known = self.0.ledger.account(account.clone()).await?;
        let known = known.ok_or(WebhookRefused::NoAccount)?;
        if known.parent.is_some() && !events.iter().all(|kind| kind.is_for_children()) {
            return Err(WebhookRefused::NotForChildren);
        }
        let id = format!("wh_{}", uuid::Uuid::now_v7().simple());
        let sealed = self.sealed(&id, secret);
        let (secret, sealed) = sealed.map_err(|why| WebhookRefused::Store(StoreError(why)))?;
        let new = New {
            id: id.clone(),
            account: account.clone(),
            url: at.url().to_owned(),
            events,
            sealed,
            from: Listener::standing(&known, self.0.config.low_balance),
        };
        let inserted = self.0.db.write(Durability::Disk, move |tx| new.insert(tx)).await?;
        if !inserted {
            return Err(WebhookRefused::TooMany);
        }
        self.0.news.listen_too(&account);
        let registered = self.list(account).await?.into_iter().find(|it| it.id == id);
        let gone = || StoreError("it was removed at once".to_owned());
        Ok((registered.ok_or_else(gone)?, secret))
    }

    fn sealed(
        &self,
        id: &str,
        secret: Option<WebhookSecret>,
    ) -> Result<(WebhookSecret, Vec<u8>), String> {
        let secret = match secret {
            Some(secret) => secret,
            None => WebhookSecret::fresh().map_err(|error| error.to_string())?,
        };
        let sealed = secret.sealed(&self.0.seal, id)?;
        Ok((secret, sealed))
    }

    /// All of an account's, without their secrets.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn list(&self, account: AccountId) -> Result<Vec<Registered>, WebhookRefused> {
        let read = move |tx: &mut crate::store::Tx<'_>| Registered::of(tx, &account);
        Ok(self.0.db.write(Durability::Process, read).await?)
    }

    /// Removes one; an attempt under way may still arrive. False: the account has no such webhook.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn remove(&self, account: AccountId, id: String) -> Result<bool, WebhookRefused> {
        let delete = move |tx: &mut crate::store::Tx<'_>| rows::delete(tx, &account, &id);
        Ok(self.0.db.write(Durability::Disk, delete).await?)
    }
}

impl<L: Ledger> Clone for Webhooks<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: Ledger> fmt::Debug for Webhooks<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhooks")
    }
}
