//! Asking the sources what a bitcoin costs.

use std::pin::pin;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::rounds::Rounds;
use super::stock::Stock;
use crate::config::{BtcUsdFeed, RateSource};
use crate::fetch::Fetch;
use crate::pricing::feed;
use crate::telemetry::Metrics;

/// The dollar rate, kept up to date.
pub(super) struct Rate {
    feed: BtcUsdFeed,
    fetch: Fetch,
    metrics: Metrics,
    /// By source: whether it failed when it was asked last. Logged when that changes.
    failing: Vec<bool>,
    /// The same for all of them together.
    agreed: Option<bool>,
}

/// What a source says, in cents, or why that does not count.
type Said = Result<u64, String>;

impl Rate {
    pub(super) fn new(feed: BtcUsdFeed, fetch: Fetch, metrics: Metrics) -> Self {
        let failing = vec![false; feed.sources.len()];
        for (index, source) in feed.sources.iter().enumerate() {
            metrics.rate_source(&label(index, source));
        }
        Self { feed, fetch, metrics, failing, agreed: None }
    }

    /// Asks at once and then every so often. `done` goes when it has asked once.
    pub(super) async fn run(mut self, stock: &Stock, done: Sender<()>) {
        let mut rounds = Rounds::new(self.feed.every, self.feed.stale_after);
        let mut cents = rounds.first(self.ask()).await;
        let mut done = Some(done);
        loop {
            if let Some(cents) = cents {
                stock.rate(Some(cents));
                self.metrics.rate_agreed(cents);
            }
            drop(done.take());
            let metrics = self.metrics.clone();
            let lapse = || {
                log::error!("btc_usd: the rate is stale; models priced in usd are refused");
                metrics.rate_stale();
                stock.rate(None);
            };
            cents = rounds.next(self.ask(), lapse).await;
        }
    }

    /// One round: what enough of them agree on.
    async fn ask(&mut self) -> Option<u64> {
        let said = self.hear().await;
        let rates: Vec<u64> = said.iter().filter_map(|said| said.as_ref().ok()).copied().collect();
        let within = self.feed.agree_within_percent;
        for (index, said) in said.iter().enumerate() {
            let failure = match said {
                Err(why) => Some(why.clone()),
                Ok(cents) if feed::stray(*cents, &rates, within) => {
                    Some(format!("says {cents} cents, which is far from the others"))
                }
                Ok(_) => None,
            };
            self.noted(index, failure);
        }
        let agreed = feed::agree(&rates, within, self.feed.sources_min);
        if self.agreed.replace(agreed.is_some()) != Some(agreed.is_some()) {
            match agreed {
                Some(cents) => log::info!("btc_usd: sources agree on {cents} cents"),
                None => log::warn!(
                    "btc_usd: fewer than {} sources agree; a rate from before holds until it is stale",
                    self.feed.sources_min
                ),
            }
        }
        agreed
    }

    /// What each source says. Asked together; when enough of them agree, the others have
    /// [`LATE_MAX`] left, so that one that hangs does not keep the rate of the others waiting, and
    /// one that is only slower still counts.
    async fn hear(&self) -> Vec<Said> {
        let sources = self.feed.sources.iter().enumerate();
        let mut open: FuturesUnordered<_> =
            sources.map(|(index, source)| async move { (index, self.one(source).await) }).collect();
        let late = || Err("no answer in time".to_owned());
        let mut said: Vec<Said> = (0..self.feed.sources.len()).map(|_| late()).collect();
        let mut patience = pin!(sleep(SOURCE_MAX));
        let mut enough = false;
        loop {
            let next = tokio::select! {
                biased;
                next = open.next() => next,
                () = &mut patience => None,
            };
            let Some((index, answer)) = next else { return said };
            if let Some(said) = said.get_mut(index) {
                *said = answer;
            }
            let rates: Vec<u64> = said.iter().flatten().copied().collect();
            let (within, min) = (self.feed.agree_within_percent, self.feed.sources_min);
            if !enough && feed::agree(&rates, within, min).is_some() {
                enough = true;
                patience.set(sleep(LATE_MAX));
            }
        }
    }

    async fn one(&self, source: &RateSource) -> Said {
        let url = source.url.reveal();
        let answer = self.fetch.get(url, &[ACCEPT], SOURCE_MAX, SOURCE_BYTES_MAX).await;
        let document = answer.map_err(|failed| failed.to_string())?;
        let number = feed::number_at(&document, &source.path).ok_or("has no number at `path`")?;
        feed::cents(&number).map_err(|_| "what is at `path` is no price of a bitcoin".to_owned())
    }

    fn noted(&mut self, index: usize, failure: Option<String>) {
        let (Some(failing), Some(source)) =
            (self.failing.get_mut(index), self.feed.sources.get(index))
        else {
            return;
        };
        let label = label(index, source);
        if failure.is_some() {
            self.metrics.rate_source_failed(&label);
        }
        let was = std::mem::replace(failing, failure.is_some());
        match failure {
            Some(why) if !was => log::warn!("btc_usd: source {label}: {why}"),
            None if was => log::info!("btc_usd: source {label} counts again"),
            _ => {}
        }
    }
}

/// The place in the configuration too: two sources may have one host.
fn label(index: usize, source: &RateSource) -> String {
    format!("{index}/{}", source.host)
}

const ACCEPT: (&str, &str) = ("accept", "application/json");

/// From the name server to the last byte.
const SOURCE_MAX: Duration = Duration::from_secs(4);

/// How long the others are waited for when enough agree.
const LATE_MAX: Duration = Duration::from_secs(1);

/// A ticker of every currency is a few kilobytes; more than this is something else.
const SOURCE_BYTES_MAX: usize = 256 * 1024;
