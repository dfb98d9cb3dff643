//! One database, one seed: the database keeps a fingerprint of the seed that its proofs are
//! derived from, and no gateway works on it with another.
//!
//! The first gateway of an empty database makes the seed. Every other one of a fleet is given
//! the same file; one that has none must not make its own.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::WalletError;
use super::seed::Seed;
use crate::store::{Db, Durability, StoreError, Tx, values};

/// The seed of this database, made and bound if it has none.
pub(super) async fn bound(db: &Db, file: &Path) -> Result<Seed, WalletError> {
    let known = db.write(Durability::Process, fingerprint).await?;
    match (Seed::read(file)?, known) {
        (Some(seed), Some(known)) => Ok(matching(seed, &known)?),
        (Some(seed), None) => {
            let known = bind(db, &seed).await?;
            matching(seed, &known)
        }
        (None, Some(_)) => Err(absent(file)),
        (None, None) => {
            let seed = Seed::make(file)?;
            let known = bind(db, &seed).await?;
            matching(seed, &known).map_err(|_| {
                // Another gateway was faster. This seed was used for nothing, and in the way of
                // the right one.
                if let Err(error) = std::fs::remove_file(file) {
                    log::warn!("the seed {} is of no use: {error}", file.display());
                }
                absent(file)
            })
        }
    }
}

/// Binds this seed unless one is bound; answers which is.
async fn bind(db: &Db, seed: &Seed) -> Result<String, StoreError> {
    let ours = hashed(seed);
    let write = move |tx: &mut Tx<'_>| {
        let sql = "INSERT INTO wallet_seed (one, fingerprint) VALUES (1, ?1)
                   ON CONFLICT (one) DO NOTHING";
        tx.execute(sql, values![&ours])?;
        Ok(fingerprint(tx)?.unwrap_or(ours))
    };
    db.write(Durability::Disk, write).await
}

fn fingerprint(tx: &mut Tx<'_>) -> Result<Option<String>, StoreError> {
    let row = tx.row("SELECT fingerprint FROM wallet_seed", values![])?;
    row.map(|row| row.get(0)).transpose()
}

fn matching(seed: Seed, known: &str) -> Result<Seed, WalletError> {
    if hashed(&seed) == known {
        return Ok(seed);
    }
    Err(WalletError::Seed("it belongs to another database".to_owned()))
}

fn hashed(seed: &Seed) -> String {
    hex::encode(Sha256::digest(seed.fingerprint_input()))
}

fn absent(file: &Path) -> WalletError {
    WalletError::Seed(format!(
        "{} is not there, and the database's proofs are worthless without it: copy it from \
         another gateway or from a backup",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::store::Store;
    use crate::store::place::{Over, Place, over_both};
    use crate::wallet::Wallet;

    struct Bench {
        dir: tempfile::TempDir,
        store: Store,
        place: Place,
    }

    impl Bench {
        async fn over(over: Over) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("wallet.db"), "").unwrap();
            Self { dir, store, place: Place::fresh(over).await }
        }

        async fn open(&self, file: &str) -> Result<Wallet, WalletError> {
            let db = self.place.open(&self.store);
            Wallet::open(db, &self.dir.path().join(file), &[], Duration::from_secs(1)).await
        }
    }

    async fn a_database_refuses_a_seed_that_is_not_its_own(over: Over) {
        let bench = Bench::over(over).await;
        bench.open("seed").await.unwrap();
        bench.open("seed").await.unwrap();
        let seed = bench.dir.path().join("seed");
        let kept = std::fs::read(&seed).unwrap();
        let told = bench.open("elsewhere").await.unwrap_err().to_string();
        assert!(told.contains("elsewhere is not there") && told.contains("copy it"), "{told}");
        assert!(!bench.dir.path().join("elsewhere").exists(), "and no new one takes its place");
        std::fs::write(&seed, vec![1; kept.len()]).unwrap();
        std::fs::set_permissions(&seed, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(bench.open("seed").await, Err(WalletError::Seed(_))), "it is another one");
    }

    async fn of_many_gateways_that_start_at_once_one_makes_the_seed(over: Over) {
        let bench = Bench::over(over).await;
        let files = ["a", "b", "c"];
        let opened = tokio::join!(bench.open("a"), bench.open("b"), bench.open("c"));
        let opened = [opened.0.is_ok(), opened.1.is_ok(), opened.2.is_ok()];
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1, "{opened:?}");
        for (file, opened) in files.into_iter().zip(opened) {
            assert_eq!(bench.dir.path().join(file).exists(), opened, "{file}");
        }
    }

    over_both! {
        a_database_refuses_a_seed_that_is_not_its_own
        of_many_gateways_that_start_at_once_one_makes_the_seed
    }
}
