//! Out of the queues: every delivery at least once, unless its webhook is given up.
//!
//! A gateway holds a webhook while it works on it, for a bounded time and on a few deliveries at
//! once; then the next webhook that something is due for has its turn. So one that hangs takes up
//! its own place and nothing else, and of a fleet one gateway works on a webhook at a time. A
//! gateway that dies meanwhile leaves it held until the time is over; what it had delivered and
//! could not say is delivered again.
//!
//! Success is any 2xx within the timeout. 410 disables the webhook; any other answer, or none, is
//! tried again after the next of the configured delays, or when `Retry-After` says if that is
//! later. A delivery that has had its last attempt is given up, and disables the webhook unless
//! something was delivered since it was made. Where a redirect points is never asked.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::rows::{Delivery, Held};
use super::{Inner, WebhookSecret, Webhooks};
use crate::clock::UnixMs;
use crate::ledger::Ledger;
use crate::store::{Durability, StoreError, Tx};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attempt {
    Delivered,
    /// The consumer says that there is nobody any more.
    Gone,
    Failed {
        why: String,
        /// What the consumer asks for.
        retry_after: Option<Duration>,
    },
}

impl<L: Ledger> Webhooks<L> {
    /// Delivers until the last other handle is gone.
    pub(super) async fn deliver(inner: Weak<Inner<L>>) {
        let mut turns = JoinSet::new();
        loop {
            let Some(webhooks) = inner.upgrade().map(Webhooks) else { return };
            while turns.try_join_next().is_some() {}
            for held in webhooks.take(TURNS_MAX.saturating_sub(turns.len())).await {
                let webhooks = webhooks.clone();
                turns.spawn(async move { webhooks.turn(held).await });
            }
            let queued = webhooks.0.queued.clone();
            drop(webhooks);
            let queued = tokio::time::timeout(ROUND, queued.notified());
            tokio::select! {
                _ended = turns.join_next(), if !turns.is_empty() => {}
                _woken = queued => {}
            }
        }
    }

    async fn take(&self, most: usize) -> Vec<Held> {
        let most = u32::try_from(most).unwrap_or(0);
        if most == 0 {
            return Vec::new();
        }
        let gateway = self.0.gateway.clone();
        let held_ms = millis(self.0.config.timeout.saturating_add(HELD_BESIDE));
        let take = move |tx: &mut Tx<'_>| Held::take_due(tx, &gateway, held_ms, most);
        self.0.db.write(Durability::Process, take).await.unwrap_or_else(|error| {
            log::warn!("webhooks: {error}");
            Vec::new()
        })
    }

    /// One turn of a webhook: its next few deliveries.
    pub(super) async fn turn(&self, held: Held) {
        if let Err(error) = self.try_turn(&held).await {
            // It stays held until the time is over.
            log::warn!("webhook {}: {error}", held.id);
        }
    }

    async fn try_turn(&self, held: &Held) -> Result<(), StoreError> {
        let due = {
            let held = held.clone();
            let read = move |tx: &mut Tx<'_>| held.due(tx, PARALLEL_MAX);
            self.0.db.write(Durability::Process, read).await?
        };
        let attempts = join_all(due.iter().map(|delivery| self.attempt(held, delivery))).await;
        let (held, webhooks) = (held.clone(), self.clone());
        let done: Vec<_> = due.into_iter().zip(attempts).collect();
        let ended = self
            .0
            .db
            .write(Durability::Process, move |tx| webhooks.conclude(tx, &held, &done))
            .await?;
        for (outcome, count) in ended {
            self.0.metrics.webhook_ended(outcome, count);
        }
        Ok(())
    }

    async fn attempt(&self, held: &Held, delivery: &Delivery) -> Attempt {
        let failed = |why: String| Attempt::Failed { why, retry_after: None };
        let secret = match WebhookSecret::opened(&self.0.seal, &held.id, &held.sealed) {
            Ok(secret) => secret,
            Err(error) => {
                log::error!("webhook {}: {error}", held.id);
                return failed("its secret cannot be read here".to_owned());
            }
        };
        // Looked up for every attempt, and connected to what was found.
        let at = match self.0.guard.admit(&held.url).await {
            Ok(at) => at,
            Err(unwelcome) => return failed(format!("the url {unwelcome}")),
        };
        let now_s = UnixMs::now().whole_seconds();
        let (of_body, standard) = secret.signatures(&delivery.event, now_s, &delivery.body);
        let timestamp = now_s.to_string();
        let headers = [
            ("content-type", "application/json"),
            ("x-webhook-signature", of_body.as_str()),
            ("webhook-id", delivery.event.as_str()),
            ("webhook-timestamp", timestamp.as_str()),
            ("webhook-signature", standard.as_str()),
        ];
        let body = Bytes::from(delivery.body.clone());
        let timeout = self.0.config.timeout;
        match self.0.fetch.post_at(&at, &headers, body, timeout).await {
            Ok(posted) if (200..300).contains(&posted.status) => Attempt::Delivered,
            Ok(posted) if posted.status == 410 => Attempt::Gone,
            Ok(posted) => Attempt::Failed {
                why: format!("answered {}", posted.status),
                retry_after: posted.retry_after.as_deref().and_then(asked_delay),
            },
            Err(error) => failed(error.to_string()),
        }
    }

    /// Writes down how the attempts ended and lets the webhook go. Nothing, if another gateway has
    /// taken over or its owner has removed it. Answers what to count.
    fn conclude(
        &self,
        tx: &mut Tx<'_>,
        held: &Held,
        done: &[(Delivery, Attempt)],
    ) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let mut ended = Vec::new();
        let Some(mut succeeded) = held.still_held(tx, &self.0.gateway)? else { return Ok(ended) };
        let now = Some(UnixMs::now());
        for (delivery, attempt) in done {
            match attempt {
                Attempt::Delivered => {
                    held.delivered(tx, &delivery.event)?;
                    succeeded = now;
                    ended.push(("delivered", 1));
                }
                Attempt::Gone => {
                    held.failed(tx, "answered 410")?;
                    ended.push(("failed", 1));
                    let undone = held.disable(tx, "the endpoint answered 410: it is gone")?;
                    ended.push(("given_up", undone));
                    return Ok(ended);
                }
                Attempt::Failed { why, retry_after } => {
                    held.failed(tx, why)?;
                    ended.push(("failed", 1));
                    if let Some(delay) = self.delay(delivery.tries, *retry_after) {
                        held.retry(tx, &delivery.event, millis(delay))?;
                        continue;
                    }
                    held.forget(tx, &delivery.event)?;
                    ended.push(("given_up", 1));
                    if succeeded.is_none_or(|at| at < delivery.created) {
                        let why =
                            "every attempt at a delivery failed, and no other succeeded since";
                        ended.push(("given_up", held.disable(tx, why)?));
                        return Ok(ended);
                    }
                }
            }
        }
        held.release(tx)?;
        Ok(ended)
    }

    /// How long until the next attempt after this many failures and one more; `None`: it was the
    /// last.
    fn delay(&self, tries: u32, retry_after: Option<Duration>) -> Option<Duration> {
        let planned = self.0.config.retries.get(usize::try_from(tries).ok()?)?;
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        Some(jittered(*planned).max(asked))
    }
}

/// A fifth more or less, so that what failed together does not come together again.
fn jittered(delay: Duration) -> Duration {
    let mut random = [0];
    // Without random bits it is the delay as it stands.
    let percent = getrandom::fill(&mut random).map_or(100, |()| 80 + u32::from(random[0]) % 41);
    delay.saturating_mul(percent) / 100
}

/// `Retry-After` in seconds. A date is passed over: the planned delay is as good.
fn asked_delay(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Between two looks at the queues when nobody gives a hint.
const ROUND: Duration = Duration::from_secs(1);

/// Webhooks that one gateway is at together; the others wait for their turn.
const TURNS_MAX: usize = 64;
/// Deliveries to one webhook at a time.
const PARALLEL_MAX: u32 = 4;

/// How long a webhook may be held beside the attempt itself: for the name server, and for the
/// database.
const HELD_BESIDE: Duration = Duration::from_secs(20);

/// A consumer cannot put a delivery off for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_differ_by_a_fifth_at_most() {
        let planned = Duration::from_secs(100);
        for _ in 0..1_000 {
            let delay = jittered(planned);
            assert!((80..=120).contains(&delay.as_secs()), "{delay:?}");
        }
    }

    #[test]
    fn only_seconds_are_a_delay_that_is_asked_for() {
        assert_eq!(asked_delay(" 7 "), Some(Duration::from_secs(7)));
        for odd in ["", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(asked_delay(odd), None, "{odd}");
        }
    }
}
