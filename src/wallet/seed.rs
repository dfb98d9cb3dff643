//! The seed: the one secret at rest, from which every proof of ours is derived (NUT-13).
//!
//! The database holds a keyset and a counter where another wallet would hold a secret; with
//! the seed file lost, what the wallet holds is lost, with it stolen, it is the thief's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use cdk::Amount;
use cdk::dhke::{blind_message, hash_to_curve};
use cdk::nuts::{BlindedMessage, Id, PublicKey, SecretKey};
use cdk::secret::Secret;
use sha2::{Digest, Sha256};

use super::WalletError;
use crate::ids::DepositId;

/// 64 random bytes. Nothing prints them.
pub(super) struct Seed([u8; SEED_BYTES]);

/// One output of ours: what the mint signs, and what turns its signature into a proof.
pub(super) struct Output {
    pub(super) amount: u64,
    pub(super) counter: u32,
    pub(super) blinded: BlindedMessage,
    pub(super) blinding: SecretKey,
}

impl Seed {
    /// To be hashed: by it a database recognises its seed.
    pub(super) fn fingerprint_input(&self) -> Vec<u8> {
        [b"nutgate seed:".as_slice(), &self.0].concat()
    }

    /// Reads the seed; nothing if there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, WalletError> {
        match File::open(path) {
            Ok(file) => Self::of(file).map(Some).map_err(|error| failed(path, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(path, &error)),
        }
    }

    /// Makes a seed, for its owner only.
    pub(super) fn make(path: &Path) -> Result<Self, WalletError> {
        Self::create(path).map_err(|error| failed(path, &error))
    }

    fn of(mut file: File) -> io::Result<Self> {
        let mode = file.metadata()?.permissions().mode();
        if mode & OTHERS != 0 {
            return Err(io::Error::other("others can read it; it must have mode 0600"));
        }
        let mut seed = [0; SEED_BYTES];
        file.read_exact(&mut seed)?;
        if file.read(&mut [0])? != 0 {
            return Err(io::Error::other("it is longer than 64 bytes"));
        }
        Ok(Self(seed))
    }

    /// Written beside its place and renamed, so that a crash leaves no half a seed.
    fn create(path: &Path) -> io::Result<Self> {
        let mut seed = [0; SEED_BYTES];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let unfinished = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(OWNER_ONLY)
            .open(&unfinished)?;
        file.write_all(&seed)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self(seed))
    }

    /// The outputs of a counter range: the n-th amount belongs to the n-th counter, always.
    pub(super) fn outputs(
        &self,
        keyset: Id,
        counter_start: u32,
        amounts: &[u64],
    ) -> Result<Vec<Output>, WalletError> {
        let output = |(counter, amount): (u32, &u64)| {
            let secret = Secret::from_seed(&self.0, keyset, counter)?;
            let blinding = SecretKey::from_seed(&self.0, keyset, counter)?;
            let (point, blinding) = blind_message(secret.as_bytes(), Some(blinding))?;
            let blinded = BlindedMessage::new(Amount::from(*amount), keyset, point);
            Ok(Output { amount: *amount, counter, blinded, blinding })
        };
        let derived: Result<Vec<_>, cdk::nuts::nut13::Error> =
            (counter_start..).zip(amounts).map(output).collect();
        derived.map_err(|error| WalletError::Crypto(error.to_string()))
    }

    /// The secret of one proof of ours: whoever has it and the signature has the money.
    pub(super) fn secret(&self, keyset: Id, counter: u32) -> Result<Secret, WalletError> {
        Secret::from_seed(&self.0, keyset, counter)
            .map_err(|error| WalletError::Crypto(error.to_string()))
    }

    /// The key that a quote is locked to (NUT-20), so that nobody but us gets what its invoice
    /// is paid with. One for each quote, so that the mint cannot tell whose they are.
    pub(super) fn quote_key(&self, id: &DepositId) -> Result<SecretKey, WalletError> {
        let mut hasher = Sha256::new_with_prefix(b"nutgate quote key:");
        hasher.update(self.0);
        hasher.update(id.as_str());
        SecretKey::from_slice(&hasher.finalize())
            .map_err(|error| WalletError::Crypto(error.to_string()))
    }

    /// A key for what is kept in the database for others and must not be read there: another one
    /// for each purpose.
    pub(super) fn sealing_key(&self, purpose: &str) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(b"nutgate sealing key:");
        hasher.update(self.0);
        hasher.update(purpose);
        hasher.finalize().into()
    }

    /// By which the mint knows this proof without seeing its secret.
    pub(super) fn y(&self, keyset: Id, counter: u32) -> Result<PublicKey, WalletError> {
        let secret = self.secret(keyset, counter)?;
        hash_to_curve(secret.as_bytes()).map_err(|error| WalletError::Crypto(error.to_string()))
    }
}

fn failed(path: &Path, error: &io::Error) -> WalletError {
    WalletError::Seed(format!("{}: {error}", path.display()))
}

const SEED_BYTES: usize = 64;
const OWNER_ONLY: u32 = 0o600;
const OTHERS: u32 = 0o077;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_made_for_its_owner_only_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        assert!(Seed::read(&path).unwrap().is_none());
        let made = Seed::make(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Seed::read(&path).unwrap().unwrap().0, made.0);
        assert!(!dir.path().join("seed.new").exists());
    }

    #[test]
    fn a_seed_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        Seed::make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Seed::read(&path), Err(WalletError::Seed(_))));
    }

    #[test]
    fn a_seed_of_another_length_is_refused() {
        for length in [0, 63, 65] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("seed");
            std::fs::write(&path, vec![7; length]).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(Seed::read(&path).is_err(), "{length} bytes");
        }
    }
}
