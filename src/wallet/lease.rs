//! Which gateway is at which operation, so that what one left unfinished is resumed by exactly
//! one other, and never while the first is alive.
//!
//! A gateway is a process: its id is made at its start and never used again. It promises by
//! the database's clock to be alive for a while longer, again and again, in `gateways`. A
//! redemption or an exchange that somebody is at has an `owner`. It is free when it has none,
//! or when its owner's promise has run out; whoever wants to work on it first makes itself the
//! owner by an UPDATE that asks for that. Each later step is an UPDATE that asks for the owner
//! to be still the same.
//!
//! As no id comes back, the owner is the fence: a process that was paused, and wakes after
//! another took over, changes no row and reloads. What it may send to the mint meanwhile is
//! the recorded request, which the other repeats as it is, so that the mint does it once.
//!
//! Only calls to a mint need an owner. Setting proofs aside for a withdrawal is one
//! transaction under the withdrawal's id: whoever does it, it is the same token, and there is
//! nothing to resume.
//!
//! On one machine the file's lock says that every other gateway is dead: the promise is for
//! ever, and those found at the start are deleted.

use std::time::Duration;

use super::{Wallet, WalletError};
use crate::store::{Db, Durability, StoreError, values};

/// True for rows that this gateway may work on; the parameter is its id.
macro_rules! free {
    ($gateway:literal) => {
        concat!(
            "(owner IS NULL OR owner = ",
            $gateway,
            " OR NOT EXISTS (SELECT 1 FROM gateways
                WHERE gateways.id = owner AND gateways.lease_until > now_ms()))"
        )
    };
}
pub(super) use free;

/// Says that this gateway lives, for the first time.
pub(super) async fn enter(db: &Db, gateway: &str) -> Result<(), StoreError> {
    let alone = !db.is_shared();
    let gateway = gateway.to_owned();
    db.write(Durability::Process, move |tx| {
        if alone {
            tx.execute("DELETE FROM gateways", values![])?;
            let sql = "INSERT INTO gateways (id, lease_until) VALUES (?1, ?2)";
            tx.execute(sql, values![gateway, i64::MAX])?;
            return Ok(());
        }
        let sql = "DELETE FROM gateways WHERE lease_until < now_ms() - ?1";
        tx.execute(sql, values![millis(FORGOTTEN)])?;
        tx.execute(RENEW, values![gateway, millis(LEASE)])?;
        Ok(())
    })
    .await
}

impl Wallet {
    /// Keeps saying that this gateway lives, until the wallet's last handle is gone. One that
    /// cannot say so for too long loses what it is at, and is told so by the rows.
    pub(super) fn keep_lease(&self) {
        if !self.db().is_shared() {
            return;
        }
        let wallet = std::sync::Arc::downgrade(&self.0);
        self.handle().spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                let Some(wallet) = wallet.upgrade().map(Wallet) else { return };
                if let Err(error) = wallet.renew_lease().await {
                    log::warn!("lease: not renewed: {error}");
                }
            }
        });
    }

    async fn renew_lease(&self) -> Result<(), WalletError> {
        let gateway = self.gateway().to_owned();
        let renew = move |tx: &mut crate::store::Tx<'_>| {
            tx.execute(RENEW, values![gateway, millis(LEASE)])?;
            Ok(())
        };
        Ok(self.db().write(Durability::Process, renew).await?)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const RENEW: &str = "INSERT INTO gateways (id, lease_until) VALUES (?1, now_ms() + ?2)
    ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until";

/// After this long without a sign of life a gateway counts as dead.
const LEASE: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// Rows of the dead are of no use after this.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::place::{Over, Place, over_both, statement};

    /// How many gateways live.
    async fn alive(db: &Db) -> i64 {
        let read = |tx: &mut crate::store::Tx<'_>| {
            let sql = "SELECT COUNT(*) FROM gateways WHERE lease_until > now_ms()";
            tx.row(sql, values![])?.unwrap().get(0)
        };
        db.write(Durability::Process, read).await.unwrap()
    }

    async fn a_gateway_lives_as_long_as_it_says_so(over: Over) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wallet.db"), "").unwrap();
        let place = Place::fresh(over).await;
        let db = place.open(&store);
        let seed = dir.path().join("seed");
        let open = || Wallet::open(db.clone(), &seed, &[], Duration::from_secs(1));
        let one = open().await.unwrap();
        let two = open().await.unwrap();
        assert_ne!(one.gateway(), two.gateway());
        assert_eq!(alive(&db).await, if db.is_shared() { 2 } else { 1 }, "one per machine");
        statement(&db, "UPDATE gateways SET lease_until = 0", values![]).await;
        assert_eq!(alive(&db).await, 0);
        two.renew_lease().await.unwrap();
        assert_eq!(alive(&db).await, 1);
    }

    over_both! { a_gateway_lives_as_long_as_it_says_so }
}
