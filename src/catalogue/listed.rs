//! Asking an upstream what it lists.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderName, HeaderValue};

use super::listing::{self, Listing};
use super::rounds::Rounds;
use super::stock::Stock;
use crate::config::{ListingPolicy, Upstream};
use crate::fetch::Fetch;
use crate::telemetry::Metrics;
use crate::upstream;

/// What one upstream lists, kept up to date.
pub(super) struct Listed {
    /// Its place in the configuration.
    index: usize,
    upstream: Upstream,
    /// The same as it is asked: by which URL, with which head.
    peer: Arc<upstream::Upstream>,
    policy: ListingPolicy,
    fetch: Fetch,
    metrics: Metrics,
    /// How many of its models are offered now.
    offered: usize,
    /// What was logged last; only a change is worth a line.
    logged: String,
}

impl Listed {
    pub(super) fn new(
        index: usize,
        upstream: &Upstream,
        peer: Arc<upstream::Upstream>,
        policy: &ListingPolicy,
        fetch: Fetch,
        metrics: Metrics,
    ) -> Self {
        let (upstream, policy) = (upstream.clone(), policy.clone());
        Self { index, upstream, peer, policy, fetch, metrics, offered: 0, logged: String::new() }
    }

    /// Asks at once and then every so often. `done` goes when it has asked once.
    pub(super) async fn run(mut self, stock: &Stock, done: Sender<()>) {
        let mut rounds = Rounds::new(self.policy.every, self.policy.stale_after);
        let mut listing = rounds.first(self.ask()).await;
        let mut done = Some(done);
        let (index, name) = (self.index, self.upstream.name.clone());
        loop {
            if let Some(Listing { models, left_out }) = listing {
                self.offered = models.len();
                self.metrics.listed(&name, models.len(), left_out.counts());
                stock.listed(index, models);
            }
            drop(done.take());
            let metrics = self.metrics.clone();
            let mut withdrawn = false;
            let lapse = || {
                log::error!("models of {name}: the list is stale and is withdrawn");
                metrics.listed(&name, 0, []);
                stock.listed(index, Vec::new());
                withdrawn = true;
            };
            listing = rounds.next(self.ask(), lapse).await;
            if withdrawn {
                self.offered = 0;
            }
        }
    }

    /// One round: a list that may be offered.
    async fn ask(&mut self) -> Option<Listing> {
        let listing = self.list().await;
        if listing.is_err() {
            self.metrics.listing_failed(&self.upstream.name);
        }
        let line = match &listing {
            Ok(Listing { models, left_out }) if left_out.is_empty() => {
                format!("{} offered", models.len())
            }
            Ok(Listing { models, left_out }) => {
                format!("{} offered, left out: {left_out}", models.len())
            }
            Err(why) => format!("{why}; the list from before holds until it is stale"),
        };
        if line != self.logged {
            let level = if listing.is_ok() { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "models of {}: {line}", self.upstream.name);
            self.logged = line;
        }
        listing.ok()
    }

    /// A list of nothing, after one of something, counts as a failure. An upstream that really gave
    /// up all of its models refuses the requests for them, which costs nobody anything; one that
    /// answers nonsense for a minute would otherwise empty the shop. Either way it is withdrawn
    /// when it is stale.
    async fn list(&self) -> Result<Listing, String> {
        let lines = self.peer.head_lines().filter(|(name, _)| *name != HOST);
        let text = |(name, value): (&'_ HeaderName, &'_ HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        let lines: Vec<(String, String)> = lines.filter_map(text).collect();
        let mut headers = vec![("accept", "application/json")];
        headers.extend(lines.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let url = self.peer.url("/models");
        let answer = self.fetch.get(&url, &headers, LIST_MAX, LIST_BYTES_MAX).await;
        let document = answer.map_err(|failed| failed.to_string())?;
        let listing = listing::read(&document, &self.upstream, &self.policy)
            .map_err(|not_a_list| not_a_list.to_string())?;
        if listing.models.is_empty() && self.offered > 0 {
            let left_out = listing.left_out;
            return Err(format!("nothing that is listed now can be offered ({left_out})"));
        }
        Ok(listing)
    }
}

/// From the name server to the last byte.
const LIST_MAX: Duration = Duration::from_secs(30);

/// The longest known list is about a megabyte.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
