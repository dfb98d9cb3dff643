//! Requests that are made once: claims and kept answers. The rest of it is a part of `admit`.

use super::link::Call;
use super::replies::Parts;
use super::{Redis, Shard};
use crate::ids::{AccountId, AttemptId, OnceId};
use crate::ledger::Unavailable;
use crate::ledger::once::{Claim, Claimed, Keep};
use crate::ledger::terms::Limits;

impl Redis {
    pub(super) async fn claim_once(&self, claim: Claim) -> Result<Claimed, Unavailable> {
        let Claim { account, once, attempt, lease, bytes_max } = claim;
        let shard = Shard::of(&account);
        let keys = [shard.once(&once.id), shard.kept(&account)];
        let call = Call::new(&self.0.scripts.claim, keys)
            .arg(self.now())
            .arg(once.fingerprint)
            .arg(attempt)
            .arg(lease.as_millis())
            .arg(bytes_max.min(Limits::MOST));
        Parts::of(self.0.link.run(&call).await?)?.claimed()
    }

    pub(super) async fn keep_answer(&self, keep: Keep) -> Result<bool, Unavailable> {
        let Keep { account, once, attempt, answer, bytes_max } = keep;
        let shard = Shard::of(&account);
        let keys = [shard.once(&once), shard.kept(&account)];
        let call = Call::new(&self.0.scripts.keep, keys)
            .arg(self.now())
            .arg(attempt)
            .arg(bytes_max.min(Limits::MOST))
            .bytes(answer);
        Ok(Parts::of(self.0.link.run(&call).await?)?.number()? == 1)
    }

    pub(super) async fn forget_once(
        &self,
        account: &AccountId,
        once: &OnceId,
        attempt: &AttemptId,
    ) -> Result<(), Unavailable> {
        let keys = [Shard::of(account).once(once)];
        let call = Call::new(&self.0.scripts.forget, keys).arg(attempt);
        self.0.link.run(&call).await.map(drop)
    }

    pub(super) async fn kept_answer(
        &self,
        account: &AccountId,
        once: &OnceId,
    ) -> Result<Option<Vec<u8>>, Unavailable> {
        let keys = [Shard::of(account).once(once)];
        let call = Call::new(&self.0.scripts.kept, keys).arg(self.now());
        let mut parts = Parts::of(self.0.link.run(&call).await?)?;
        if parts.is_empty() { Ok(None) } else { parts.bytes().map(Some) }
    }
}
